import { randomBytes } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { find, timeCommand } from '../support/command.mjs'
import { forEachPersister } from '../support/persisters.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'
import { startSink } from '../support/sink.mjs'

const FILES = 10_000
const FOLDERS = 20
const ROUNDS = 9

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'persist-result of a directory of 10,000 small files over HTTP : tar czf - | curl -T - of it',
  missing: async () => ((await find('curl')) === undefined ? 'curl is not installed' : undefined),
  run: () =>
    withScratch(async (folder) => {
      const tree = join(folder, 'tree')
      await plant(tree)
      const sink = await startSink()
      try {
        return await forEachPersister((persister) => measure(persister, folder, tree, sink.url))
      } finally {
        await sink.close()
      }
    }),
}

/**
 * @param {import('../support/persisters.mjs').Persister} persister
 * @param {string} folder
 * @param {string} tree
 * @param {string} url
 * @returns {Promise<import('../support/entry.mjs').Measure[]>}
 */
async function measure({ name, argv: [file, ...args], bounds }, folder, tree, url) {
  const spool = join(folder, 'spool')
  const env = { WORKER_RESULTS_LOCAL_DIR: spool, WORKER_ID: 'bench', WORKER_RESULTS_ENDPOINT: url }
  const pipe = 'tar czf - -C "$1" tree | curl -sS --fail -o /dev/null -T - "$2"'
  const { ours, theirs } = await sideBySide(ROUNDS, {
    ours: async () => {
      const ms = await timeCommand([file, ...args, '--quiet', '--require', 'http', tree], env)
      await rm(spool, { recursive: true })
      return ms
    },
    theirs: () => timeCommand(['/bin/sh', '-c', pipe, 'sh', folder, url]),
  })
  return [
    {
      name: ` ${name}`,
      value: ours.medianMs / theirs.medianMs,
      bound: bounds.directory,
      unit: 'x',
      detail: `${formatTimes(ours)} : ${formatTimes(theirs)}`,
    },
  ]
}

/** @param {string} tree */
async function plant(tree) {
  for (let folder = 0; folder < FOLDERS; folder += 1) {
    await mkdir(join(tree, `${folder}`), { recursive: true })
    for (let i = folder; i < FILES; i += FOLDERS) {
      const text = JSON.stringify({ index: i, text: randomBytes(200).toString('hex') })
      await writeFile(join(tree, `${folder}`, `file-${i}.json`), text)
    }
  }
}
