import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { isDeepStrictEqual } from 'node:util'
import { createGunzip } from 'node:zlib'
import { extract } from 'tar-stream'
import { DEATH_CERTIFICATE_NAME, type DeathCertificate } from '../../src/protocol/death-certificate.js'
import { checkAttempts } from './attribution.js'
import { knownBytes, knownFiles } from './content.js'
import type { Copy } from './copies.js'
import type { LabReceipt, Outcome } from './messages.js'
import {
  contentLabel,
  lifeOf,
  metadataOf,
  outputBytes,
  planOf,
  planOperation,
  UNDECLARED_FILE,
  undeclaredBytes,
} from './plan.js'
import type { PlainlyFound } from './reading-back.js'

/** What the checker found; every list is for people, one line each. */
export interface Verdict {
  readonly acknowledged: number
  /** Acknowledged and nowhere to be found. */
  readonly lost: string[]
  /** Gone with a sandbox that the adversary destroyed, acknowledged as being in that sandbox only. */
  readonly goneWithSandbox: number
  /** Gone because somebody ended the worker by force, and named on the receipt as given up. */
  readonly givenUp: number
  /** Bytes that are not what was handed over, or a key that has another result's bytes. */
  readonly corrupt: string[]
  /** One result under two keys. */
  readonly duplicated: string[]
  /** Contradictions between what was said and what is there. */
  readonly contradictions: string[]
  /** Sandboxes of which a manifest tells twice or without what they left, and deaths with two certificates. */
  readonly mistold: string[]
  /** Whole results that nobody acknowledged: their persister was killed in between. */
  readonly unacknowledged: number
  /** What a program had written of a result when it was killed, which to its persister was the end; nobody was told of it. */
  readonly cutShort: number
}

/** What has to be there. */
export interface Expectation {
  readonly seed: number
  readonly outcomes: readonly Outcome[]
  readonly receipts: ReadonlyMap<string, LabReceipt>
  readonly manifests: ReadonlyMap<string, string>
  /** Lives whose declared output was written before their sandbox ended in good order. */
  readonly outputs: ReadonlySet<string>
  /** Lives whose sandbox the adversary destroyed. */
  readonly vanished: ReadonlySet<string>
  /** Lives that were ended by force. */
  readonly forced?: ReadonlySet<string>
  /** Lives that a second conductor had its hands in, which may have ended them as it saw fit. */
  readonly meddled?: ReadonlySet<string>
}

/** No worker has more sandboxes. */
const MAX_LIVES = 12

const CERTIFICATE_OF = 'certificate of '
const UNDECLARED_NAME = 'undeclared-outputs.tar.gz'
const UNDECLARED_OF = 'undeclared output of '

interface FailedOutput {
  readonly path: string
  readonly reason: string
}

/** Nobody acknowledged undeclared outputs, and where the disk was full it is said why they are not there. */
function isForWantOfRoom({ path, reason }: FailedOutput): boolean {
  return path === UNDECLARED_NAME && /no space left|disk full/i.test(reason)
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Compares copies with what is known of them, one at a time, and at the end with what was acknowledged. */
export class Checker {
  readonly #expected: Expectation
  readonly #keysOf = new Map<string, Set<string>>()
  /** By key: what each place has under it. */
  readonly #found = new Map<
    string,
    {
      readonly identity: string
      readonly sha256: string
      readonly content: string
      readonly places: Set<string>
    }
  >()
  readonly #corrupt: string[] = []
  /** What programs lived to hear the end of. */
  readonly #ended: ReadonlySet<string>
  #cutShort = 0

  constructor(expected: Expectation) {
    this.#expected = expected
    this.#ended = new Set(
      expected.outcomes.map(({ taskId, life, operation, attempt }) =>
        identityOf(lifeOf(taskId, life), operation, attempt),
      ),
    )
  }

  async visit(copy: Copy): Promise<void> {
    const { key, place } = copy
    const identity = await identify(copy, this.#expected.seed)
    if (identity === undefined) {
      this.#corrupt.push(`${place} ${key}: of nobody known (${JSON.stringify(copy.metadata).slice(0, 100)})`)
      return
    }
    if (copy.claimedSha256 !== copy.sha256) {
      this.#corrupt.push(
        `${place} ${key}: claims ${copy.claimedSha256}, has ${copy.sha256} (${copy.bytes.length} bytes)`,
      )
    }
    const problem = await this.#contentProblem(copy)
    if (problem !== undefined) this.#corrupt.push(`${place} ${key}: ${problem}`)
    const before = this.#found.get(key)
    if (before !== undefined && before.identity !== identity) {
      this.#corrupt.push(`${place} ${key}: ${identity}, elsewhere it is ${before.identity}`)
    }
    const places = before?.places ?? new Set()
    places.add(place)
    this.#found.set(key, { identity, sha256: copy.sha256, content: sha256(copy.bytes), places })
    const keys = this.#keysOf.get(identity) ?? new Set()
    keys.add(key)
    this.#keysOf.set(identity, keys)
  }

  conclude(): Verdict {
    const { seed, outcomes, receipts, manifests, outputs, vanished } = this.#expected
    const { meddled = new Set(), forced = new Set() } = this.#expected
    const lost: string[] = []
    const contradictions: string[] = []
    const corrupt = this.#corrupt
    const duplicated: string[] = []
    const mistold: string[] = []
    let goneWithSandbox = 0
    let givenUp = 0
    let acknowledged = 0
    const known = new Set<string>()
    for (const outcome of outcomes) {
      const { result } = outcome
      if (result === undefined) continue
      acknowledged++
      known.add(result.key)
      const found = this.#found.get(result.key)
      const life = lifeOf(outcome.taskId, outcome.life)
      const identity = identityOf(life, outcome.operation, outcome.attempt)
      const tiers = result.stored.map(({ tier }) => tier)
      if (found === undefined) {
        if (tiers.length === 0 && vanished.has(life) && planOf(seed, outcome.taskId)?.kind === 'grant')
          goneWithSandbox++
        else if (tiers.length === 0 && this.#isGivenUp(life, outcome.taskId, result.key)) givenUp++
        else
          lost.push(
            `${result.key} (${identity}, ${outcome.via}, acknowledged in ${tiers.join(', ') || 'the spool'})`,
          )
        continue
      }
      if (found.identity !== identity)
        corrupt.push(`${result.key}: acknowledged for ${identity}, holds ${found.identity}`)
      else if (found.sha256 !== result.sha256) corrupt.push(`${result.key}: acknowledged with another digest`)
      for (const tier of tiers) {
        if (!found.places.has(tier))
          contradictions.push(
            `${result.key} (${identity}, ${outcome.via}): acknowledged in ${tier}, is not there`,
          )
      }
    }
    for (const [identity, keys] of this.#keysOf) {
      if (keys.size === 1) continue
      const twice = `${identity}: ${[...keys].join(' and ')}`
      if (identity.startsWith(CERTIFICATE_OF)) mistold.push(twice)
      else duplicated.push(twice)
    }
    const noRoom = new Set<string>()
    for (const [taskId, receipt] of receipts) {
      for (const { key, sha256: digest, tiers } of receipt.results) {
        known.add(key)
        const found = this.#found.get(key)
        if (found === undefined) lost.push(`${key}: on the receipt of ${taskId} (${tiers.join(', ')})`)
        else if (found.sha256 !== digest) corrupt.push(`${key}: not as the receipt of ${taskId} has it`)
        else
          for (const tier of tiers) {
            if (!found.places.has(tier))
              contradictions.push(`${key}: on the receipt in ${tier}, is not there`)
          }
      }
      for (const output of receipt.failedOutputs) {
        if (isForWantOfRoom(output)) noRoom.add(taskId)
        else contradictions.push(`${taskId}: output ${output.path} failed: ${output.reason}`)
      }
    }
    // The receipt of a conductor that was killed nobody heard.
    for (const [taskId, text] of manifests) {
      const { attempts = [] } = JSON.parse(text) as {
        attempts?: readonly { failed_outputs?: FailedOutput[] }[]
      }
      if (attempts.some(({ failed_outputs = [] }) => failed_outputs.some(isForWantOfRoom))) noRoom.add(taskId)
    }
    for (const life of outputs) {
      if (!this.#keysOf.has(`output of ${life}`)) lost.push(`declared output of ${life}`)
      const isTold = [...noRoom].some((taskId) => life === taskId || life.startsWith(`${taskId},`))
      if (isTold) continue
      if (planOf(seed, life)?.leavesUndeclared === true && !this.#keysOf.has(`${UNDECLARED_OF}${life}`))
        lost.push(`undeclared output of ${life}`)
    }
    for (const [taskId, text] of manifests) {
      const { results } = JSON.parse(text) as { results: { key: string; sha256: string }[] }
      for (const { key, sha256: digest } of results) {
        const found = this.#found.get(key)
        if (found === undefined) contradictions.push(`manifest of ${taskId} names ${key}, which is nowhere`)
        else if (found.sha256 !== digest) corrupt.push(`${key}: not as the manifest of ${taskId} has it`)
      }
    }
    const keysThere = new Set(this.#found.keys())
    mistold.push(...checkAttempts({ manifests, outcomes, receipts, keysThere, meddled, forced }))
    const unacknowledged = [...this.#found.keys()].filter((key) => !known.has(key)).length
    return {
      acknowledged,
      lost,
      goneWithSandbox,
      givenUp,
      corrupt,
      duplicated,
      contradictions,
      mistold,
      unacknowledged,
      cutShort: this.#cutShort,
    }
  }

  /** What was found under each key, and where. */
  get found(): PlainlyFound {
    return this.#found
  }

  /** A receipt that nobody came to hear tells nobody of anything. */
  #isGivenUp(life: string, taskId: string, key: string): boolean {
    const { forced, receipts } = this.#expected
    if (forced?.has(life) !== true) return false
    const receipt = receipts.get(taskId)
    if (receipt === undefined || lifeOf(taskId, receipt.life) !== life) return true
    return receipt.undelivered.some((one) => one.key === key)
  }

  /** Says how the bytes differ from those that were handed over. */
  async #contentProblem({ bytes, key, metadata }: Copy): Promise<string | undefined> {
    const { seed } = this.#expected
    const taskId = taskOf(key)
    if (isCertificate(key)) return certificateProblem(bytes, taskId)
    if (isUndeclared(key)) {
      const life = await undeclaredLife(bytes, seed, taskId)
      return life === undefined ? 'not the undeclared output' : undefined
    }
    if (typeof metadata.operation !== 'number') {
      return outputLife(bytes, seed, taskId) === undefined ? 'not the declared output' : undefined
    }
    const { operation, attempt, life } = metadata as { operation: number; attempt: number; life: number }
    const planned = planOperation(seed, operation)
    const { shape, sizeBytes } = planned
    const same = [true, false].some((bigMetadata) =>
      isDeepStrictEqual(metadata, metadataOf({ ...planned, bigMetadata }, seed, attempt, life)),
    )
    if (!same) return `metadata is not as it was given: ${JSON.stringify(metadata).slice(0, 200)}`
    const label = contentLabel(seed, operation, attempt, life)
    if (shape !== 'directory') {
      const expected = knownBytes(label, sizeBytes)
      if (bytes.equals(expected)) return undefined
      const isStart = expected.subarray(0, bytes.length).equals(bytes)
      if (
        shape === 'stdin' &&
        isStart &&
        !this.#ended.has(identityOf(lifeOf(taskId, life), operation, attempt))
      ) {
        this.#cutShort++
        return undefined
      }
      return `${bytes.length} bytes ${sha256(bytes)}, ${isStart ? 'the first of ' : ''}${expected.length} expected`
    }
    const files = new Map<string, Buffer>()
    try {
      await readArchive(bytes, files)
    } catch (error) {
      return `not a whole archive: ${error}`
    }
    const expected = knownFiles(label, sizeBytes)
    const base = `source-${operation}-${attempt}/`
    const whole =
      files.size === expected.length &&
      expected.every(({ path, bytes: wanted }) => files.get(`${base}${path}`)?.equals(wanted) === true)
    return whole ? undefined : `archive has ${[...files.keys()].join(', ')}`
  }
}

/** Which attempt, declared output or certificate a copy is of. */
async function identify({ key, bytes, metadata }: Copy, seed: number): Promise<string | undefined> {
  const taskId = taskOf(key)
  const { operation, attempt, life } = metadata
  if (typeof operation === 'number' && typeof attempt === 'number' && typeof life === 'number') {
    return identityOf(lifeOf(taskId, life), operation, attempt)
  }
  if (isCertificate(key)) return `${CERTIFICATE_OF}${lifeOf(taskId, readCertificate(bytes)?.attempt)}`
  if (isUndeclared(key)) return `${UNDECLARED_OF}${lifeOf(taskId, await undeclaredLife(bytes, seed, taskId))}`
  if (!key.endsWith('-output.bin')) return undefined
  return `output of ${lifeOf(taskId, outputLife(bytes, seed, taskId))}`
}

/** Of one sandbox of a task: what went with one before it could say so is done once more in another. */
function identityOf(life: string, operation: number, attempt: number): string {
  return `operation ${operation} attempt ${attempt} of ${life}`
}

/** Which of a worker's sandboxes has left this as its declared output. */
function outputLife(bytes: Buffer, seed: number, taskId: string): number | undefined {
  for (let life = 1; life <= MAX_LIVES; life++) if (bytes.equals(outputBytes(seed, taskId, life))) return life
  return undefined
}

/** Which of a worker's sandboxes has left the only file of this archive without declaring it. */
async function undeclaredLife(bytes: Buffer, seed: number, taskId: string): Promise<number | undefined> {
  const files = new Map<string, Buffer>()
  try {
    await readArchive(bytes, files)
  } catch {
    return undefined
  }
  const [[path, content] = ['', Buffer.alloc(0)], ...others] = files
  if (others.length > 0 || !path.endsWith(UNDECLARED_FILE)) return undefined
  for (let life = 1; life <= MAX_LIVES; life++)
    if (content.equals(undeclaredBytes(seed, taskId, life))) return life
  return undefined
}

function isUndeclared(key: string): boolean {
  return key.endsWith(`-${UNDECLARED_NAME}`)
}

function taskOf(key: string): string {
  return key.slice(0, key.indexOf('/'))
}

function isCertificate(key: string): boolean {
  return key.endsWith(`-${DEATH_CERTIFICATE_NAME}`)
}

function readCertificate(bytes: Buffer): Partial<DeathCertificate> | undefined {
  try {
    return JSON.parse(bytes.toString()) as Partial<DeathCertificate>
  } catch {
    return undefined
  }
}

function certificateProblem(bytes: Buffer, taskId: string): string | undefined {
  const certificate = readCertificate(bytes)
  return certificate?.task_id === taskId && certificate.cause !== undefined
    ? undefined
    : `not a certificate of ${taskId}: ${bytes.toString().slice(0, 200)}`
}

async function readArchive(bytes: Buffer, files: Map<string, Buffer>): Promise<void> {
  const archive = extract()
  const reading = (async () => {
    for await (const entry of archive) {
      const chunks: Buffer[] = []
      for await (const chunk of entry) chunks.push(chunk as Buffer)
      if (entry.header.type === 'file')
        files.set(entry.header.name.replace(/^\.\//, ''), Buffer.concat(chunks))
    }
  })()
  await Promise.all([pipeline(Readable.from([bytes]), createGunzip(), archive), reading])
}
