import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { startChild } from '../support/child.mjs'
import { find, timeCommand } from '../support/command.mjs'
import { startNginx } from '../support/nginx.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

const SIZE_MIB = 256
const ROUNDS = 5
const BIG_MIB = 2048
/** What the endpoint's process may hold at its peak, over 2 GB up and down again. */
const MAX_MEGABYTES = 200

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: "an upload of 256 MB to the results endpoint : nginx's WebDAV PUT of it, and a bare node:http server",
  missing: async () => ((await find('curl')) === undefined ? 'curl is not installed' : undefined),
  run: () =>
    withScratch(async (folder) => {
      const endpoint = await startChild(new URL('../support/endpoint-process.mjs', import.meta.url), [
        join(folder, 'results'),
      ])
      const sink = await startChild(new URL('../support/put-sink-process.mjs', import.meta.url), [folder])
      const nginx = await startNginx(folder)
      if (nginx === undefined) process.stderr.write("nginx is not installed (Debian's package nginx)\n")
      try {
        return [
          ...(await compareUploads(folder, endpoint.ready.url, sink.ready.url, nginx?.url)),
          await measureMemory(folder, endpoint),
        ]
      } finally {
        await nginx?.close()
        await sink.close()
        await endpoint.close()
      }
    }),
}

/**
 * @param {string} folder
 * @param {string} endpoint
 * @param {string} sink
 * @param {string | undefined} nginx
 * @returns {Promise<import('../support/entry.mjs').Measure[]>}
 */
async function compareUploads(folder, endpoint, sink, nginx) {
  const file = join(folder, 'file')
  await writeFile(file, SIZE_MIB)
  const results = join(folder, 'results', 'bench')
  const times = await sideBySide(ROUNDS, {
    ours: async () => {
      const ms = await timeCommand(post(file, endpoint))
      await rm(results, { recursive: true })
      return ms
    },
    bare: () => timeCommand(put(file, `${sink}/sunk`)),
    'bare and synced': () => timeCommand(put(file, `${sink}/synced`)),
    ...(nginx === undefined ? {} : { nginx: () => timeCommand(put(file, `${nginx}/file`)) }),
  })
  const { ours, ...others } = times
  // 0.7 of the throughput.
  return Object.entries(others).map(([name, theirs]) => ({
    name: `, ${name}`,
    value: ours.medianMs / theirs.medianMs,
    bound: 1 / 0.7,
    unit: 'x',
    // The endpoint acknowledges only what is on the disk, which nginx does not wait for.
    detail: `${formatTimes(ours)} : ${formatTimes(theirs)}`,
  }))
}

/**
 * @param {string} folder
 * @param {Awaited<ReturnType<typeof startChild>>} endpoint
 * @returns {Promise<import('../support/entry.mjs').Measure>}
 */
async function measureMemory(folder, endpoint) {
  const file = join(folder, 'file')
  await writeFile(file, BIG_MIB)
  const before = await endpoint.peakMegabytes()
  await timeCommand(post(file, endpoint.ready.url))
  await rm(file)
  const key = 'bench/20260114-120000-file'
  await timeCommand(['curl', '-sS', '--fail', '-o', file, `${endpoint.ready.url}/${key}`])
  return {
    name: ', memory of 2 GB up and down',
    value: await endpoint.peakMegabytes(),
    bound: MAX_MEGABYTES,
    unit: 'MB',
    detail: `peak of the endpoint's process; ${before.toFixed(0)} MB after the uploads of 256 MB`,
  }
}

/** @param {string} file @param {string} url @returns {[string, ...string[]]} */
function post(file, url) {
  const fields = ['-F', 'key=bench/20260114-120000-file', '-F', 'task_id=bench', '-F', `file=@${file}`]
  return ['curl', '-sS', '--fail', '-o', '/dev/null', ...fields, url]
}

/** @param {string} file @param {string} url @returns {[string, ...string[]]} */
function put(file, url) {
  return ['curl', '-sS', '--fail', '-o', '/dev/null', '-T', file, url]
}

/** @param {string} path @param {number} mebibytes */
async function writeFile(path, mebibytes) {
  const block = Buffer.alloc(1 << 20, 'results')
  const file = await open(path, 'w')
  try {
    for (let i = 0; i < mebibytes; i += 1) await file.write(block)
    await file.sync()
  } finally {
    await file.close()
  }
}
