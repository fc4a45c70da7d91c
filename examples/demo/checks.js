import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { Sandbox } from 'e2b'
import { digest } from './read-back.js'

/**
 * @typedef {object} Check
 * @property {string} name
 * @property {boolean} ok
 * @property {string} detail What was seen, in a few words.
 */

/**
 * What there is to check.
 *
 * @typedef {object} Evidence
 * @property {string} runId
 * @property {Readonly<Record<string, string | undefined>>} env
 * @property {readonly import('./workers.js').DemoWorker[]} workers
 * @property {readonly import('stu-conductor').Receipt[]} receipts
 * @property {readonly import('./read-back.js').Found[]} found
 * @property {number} sandboxesWhileRunning
 */

/** @type {readonly (readonly [name: string, look: (evidence: Evidence) => Promise<[ok: boolean, detail: string]>])[]} */
const CHECKS = [
  ['workers ended as they should', workersEnded],
  ['every sandbox is gone', sandboxesGone],
  ['every result is listed', everythingListed],
  ['every result is fetched and verified', everythingVerified],
  ['the failed worker left its error and totals', failureKept],
  ['a presigned URL works without credentials', presignedUrlWorks],
  ['the archive lists the plots', archiveHoldsPlots],
]

/**
 * Makes every check; one that cannot be made counts as failed.
 *
 * @param {Evidence} evidence
 * @returns {Promise<readonly Check[]>}
 */
export function makeChecks(evidence) {
  return Promise.all(
    CHECKS.map(async ([name, look]) => {
      try {
        const [ok, detail] = await look(evidence)
        return { name, ok, detail }
      } catch (error) {
        return { name, ok: false, detail: error instanceof Error ? error.message : String(error) }
      }
    }),
  )
}

/**
 * How many sandboxes of a run E2B knows, paused ones included. Asks with E2B's own SDK, not with ours.
 *
 * @param {Readonly<Record<string, string | undefined>>} env
 * @param {string} runId
 */
export async function countSandboxes(env, runId) {
  const pages = Sandbox.list({
    ...(env.E2B_API_KEY && { apiKey: env.E2B_API_KEY }),
    ...(env.E2B_API_URL && { apiUrl: env.E2B_API_URL }),
    ...(env.E2B_DOMAIN && { domain: env.E2B_DOMAIN }),
    query: { metadata: { demo: runId } },
  })
  let count = 0
  while (pages.hasNext) count += (await pages.nextItems()).length
  return count
}

/** @type {(evidence: Evidence) => Promise<[boolean, string]>} */
async function workersEnded({ workers, receipts }) {
  const ends = workers.map(({ name, expected }, i) => {
    const exitCode = receipts[i]?.exitCode ?? null
    return { ok: exitCode === expected.exitCode, text: `${name} exited with ${exitCode ?? 'nothing known'}` }
  })
  const wrong = ends.filter(({ ok }) => !ok).map(({ text }) => text)
  return [wrong.length === 0, wrong.join(', ') || `${workers.length} of ${workers.length}`]
}

/** @type {(evidence: Evidence) => Promise<[boolean, string]>} */
async function sandboxesGone({ env, runId, workers, sandboxesWhileRunning }) {
  const left = await countSandboxes(env, runId)
  const ok = left === 0 && sandboxesWhileRunning === workers.length
  return [ok, `there were ${sandboxesWhileRunning}, now ${left}`]
}

/** @type {(evidence: Evidence) => Promise<[boolean, string]>} */
async function everythingListed({ workers, receipts, found }) {
  const listed = found.map(({ key }) => key)
  const delivered = receipts.flatMap(({ results }) => results.map(({ key }) => key))
  const lost = delivered.filter((key) => !listed.includes(key))
  const missing = workers.flatMap(({ name, expected }, i) => {
    const names = found
      .filter(({ taskId }) => taskId === receipts[i]?.taskId)
      .map(({ result }) => result.name)
    return expected.results.filter((wanted) => !names.includes(wanted)).map((wanted) => `${name}: ${wanted}`)
  })
  const expectedCount = workers.reduce((sum, { expected }) => sum + expected.results.length, 0)
  const ok = lost.length === 0 && missing.length === 0 && listed.length === expectedCount
  return [ok, [...lost, ...missing].join(', ') || `${listed.length} of ${expectedCount}`]
}

/** @type {(evidence: Evidence) => Promise<[boolean, string]>} */
async function everythingVerified({ found }) {
  const bad = found.filter(({ verified }) => !verified)
  const bytes = found.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const seen =
    bad.length === 0 ? `${found.length} results, ${bytes} bytes` : `${bad.length} of ${found.length} are not`
  return [bad.length === 0 && found.length > 0, seen]
}

/** @type {(evidence: Evidence) => Promise<[boolean, string]>} */
async function failureKept({ found }) {
  const { error } = parse(only(found, 'error.json'))
  const totals = Object.keys(parse(only(found, 'partial-totals.json')))
  return [/SO-10417/.test(error) && totals.length > 0, `"${error}", ${totals.length} partial totals`]
}

/** @type {(evidence: Evidence) => Promise<[boolean, string]>} */
async function presignedUrlWorks({ found }) {
  const { result, bytes } = only(found, 'word-counts.json')
  const response = await fetch(await result.url({ expiresInSeconds: 60 }))
  const body = new Uint8Array(await response.arrayBuffer())
  const same = bytes !== undefined && digest(body) === digest(bytes)
  return [
    response.ok && same,
    `HTTP ${response.status}, ${body.length} bytes${same ? ', the same' : ', not the same'}`,
  ]
}

/** @type {(evidence: Evidence) => Promise<[boolean, string]>} */
async function archiveHoldsPlots({ found }) {
  const names = await listArchive(bytesOf(only(found, 'plots.tar.gz')))
  const plots = names.filter((name) => name.endsWith('.svg'))
  return [plots.length === 4, plots.join(' ') || 'no plots']
}

/**
 * The result of that name, of whichever task.
 *
 * @param {readonly import('./read-back.js').Found[]} found
 * @param {string} name
 */
function only(found, name) {
  const [first] = found.filter(({ result }) => result.name === name)
  if (first === undefined) throw new Error(`there is no ${name}`)
  return first
}

/** @param {import('./read-back.js').Found} found */
function bytesOf({ key, bytes }) {
  if (bytes === undefined) throw new Error(`${key} could not be read`)
  return bytes
}

/** @param {import('./read-back.js').Found} found */
function parse(found) {
  return JSON.parse(Buffer.from(bytesOf(found)).toString('utf8'))
}

/**
 * Names of the files in a .tar.gz, as the system's own tar sees them.
 *
 * @param {Uint8Array} bytes
 */
async function listArchive(bytes) {
  const tar = spawn('tar', ['-tzf', '-'])
  // tar may have seen enough before it has read everything.
  tar.stdin.on('error', () => {}).end(bytes)
  const [names, complaint, [code]] = await Promise.all([
    text(tar.stdout),
    text(tar.stderr),
    once(tar, 'close'),
  ])
  if (code !== 0) throw new Error(`tar: ${complaint.split('\n')[0]}`)
  return names.trim().split('\n')
}
