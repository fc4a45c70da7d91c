import { randomBytes } from 'node:crypto'
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { timeCommand } from '../support/command.mjs'
import { BUNDLE } from '../support/dist.mjs'
import { startS3 } from '../support/s3.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'wall time that persist-result (node) of 1 KB to S3 adds to a bare node -e 0',
  run: () =>
    withScratch(async (folder) => {
      const file = join(folder, 'small.bin')
      await writeFile(file, randomBytes(1024))
      const s3 = await startS3()
      try {
        const env = { ...s3.env, WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), WORKER_ID: 'bench' }
        // Names of their own, since one name is stored once a second.
        const words = (/** @type {string} */ bundle, /** @type {string} */ name) =>
          /** @type {const} */ ([
            process.execPath,
            bundle,
            ...['--quiet', '--require', 's3', '--name', name, file],
          ])
        // From its second call on it keeps beside itself what V8 has compiled of it.
        const bin = join(folder, 'bin')
        const fresh = async () => {
          await rm(bin, { recursive: true, force: true })
          await mkdir(bin)
          for (const name of ['persist-result.js', 'package.json'])
            await copyFile(join(dirname(BUNDLE), name), join(bin, name))
        }
        await timeCommand(words(BUNDLE, 'first.bin'), env)
        await timeCommand(words(BUNDLE, 'second.bin'), env)
        const { ours, first, bare } = await sideBySide(31, {
          ours: (round) => timeCommand(words(BUNDLE, `small-${round}.bin`), env),
          first: async (round) => {
            await fresh()
            return timeCommand(words(join(bin, 'persist-result.js'), `first-${round}.bin`), env)
          },
          bare: () => timeCommand([process.execPath, '-e', '0']),
        })
        return [
          {
            name: '',
            value: ours.medianMs - bare.medianMs,
            bound: 40,
            unit: 'ms',
            detail: `${formatTimes(ours)} - ${formatTimes(bare)}; where nothing is kept yet ${formatTimes(first)}`,
          },
        ]
      } finally {
        await s3.close()
      }
    }),
}
