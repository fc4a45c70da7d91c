import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { find, timeCommand } from '../support/command.mjs'
import { compiled } from '../support/dist.mjs'
import { plantTask, sealTask } from '../support/plant.mjs'
import { startRgw } from '../support/rgw.mjs'
import { startS3 } from '../support/s3.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

const { Conductor } = await import(compiled('index.js'))

const COUNT = 1000
const SIZE_BYTES = 1e6
const ROUNDS = 3
/** Transfers at once that rclone is tried with; its own default is 4. */
const RCLONE_TRANSFERS = [4, 16]

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'results.download() of 1,000 times 1 MB : aws s3 sync and rclone copy, whichever is fastest',
  missing: async () =>
    (await find('aws')) === undefined && (await find('rclone')) === undefined
      ? 'neither the AWS CLI nor rclone is installed'
      : undefined,
  run: () =>
    withScratch(async (folder) => {
      const all = []
      for (const [name, start] of /** @type {const} */ ([
        ['local', startS3],
        ['rgw', () => startRgw(folder)],
      ])) {
        const s3 = await start()
        if (s3 === undefined) {
          process.stderr.write('Ceph RGW is not on this machine: only the local server is measured\n')
          continue
        }
        try {
          all.push(await measure(name, s3, folder))
        } finally {
          await s3.close()
        }
      }
      return all
    }),
}

/**
 * @param {string} name
 * @param {import('../support/s3.mjs').BenchS3} s3
 * @param {string} folder
 * @returns {Promise<import('../support/entry.mjs').Measure>}
 */
async function measure(name, s3, folder) {
  await sealTask(s3, await plantTask(s3, 'many', COUNT, SIZE_BYTES))
  const conductor = new Conductor({ env: s3.env })
  const to = join(folder, 'to')
  /** Times what fills a fresh folder. @param {() => Promise<unknown>} fill */
  const timed = async (fill) => {
    await mkdir(to)
    const started = performance.now()
    await fill()
    const ms = performance.now() - started
    const { length } = await readdir(to)
    await rm(to, { recursive: true })
    if (length !== COUNT) throw new Error(`${length} files were fetched, not ${COUNT}`)
    return ms
  }
  const rival = await rivals(s3, to)
  try {
    const { ours, ...others } = await sideBySide(ROUNDS, {
      ours: () => timed(() => conductor.results('many').download(to)),
      ...Object.fromEntries(
        Object.entries(rival).map(([title, command]) => [
          title,
          () => timed(() => timeCommand(command, s3.env)),
        ]),
      ),
    })
    const [[best, times] = ['', ours]] = Object.entries(others).sort(
      ([, a], [, b]) => a.medianMs - b.medianMs,
    )
    const rest = Object.entries(others).map(([title, theirs]) => `${title} ${formatTimes(theirs)}`)
    return {
      name: `, ${name}`,
      value: ours.medianMs / times.medianMs,
      // 0.8 of the throughput.
      bound: 1.25,
      unit: 'x',
      detail: `${formatTimes(ours)} : ${best}; ${rest.join(', ')}`,
    }
  } finally {
    await conductor.close()
  }
}

/**
 * @param {import('../support/s3.mjs').BenchS3} s3
 * @param {string} to
 * @returns {Promise<Record<string, [string, ...string[]]>>}
 */
async function rivals({ url, region, bucket }, to) {
  /** @type {Record<string, [string, ...string[]]>} */
  const all = {}
  const aws = await find('aws')
  if (aws !== undefined) {
    const from = `s3://${bucket}/results/many/`
    all['aws s3 sync'] = [aws, 's3', 'sync', '--quiet', '--endpoint-url', url, from, to]
  }
  const rclone = await find('rclone')
  if (rclone === undefined) process.stderr.write("rclone is not installed (Debian's package rclone)\n")
  for (const transfers of rclone === undefined ? [] : RCLONE_TRANSFERS) {
    const remote = `:s3,provider=Other,env_auth=true,endpoint="${url}",region=${region}:${bucket}/results/many`
    const at = String(transfers)
    all[`rclone --transfers ${at}`] = [
      rclone ?? '',
      'copy',
      '--transfers',
      at,
      '--checkers',
      '16',
      remote,
      to,
    ]
  }
  return all
}
