import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
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
        const words = (/** @type {number} */ round) =>
          /** @type {const} */ ([
            process.execPath,
            BUNDLE,
            ...['--quiet', '--require', 's3', '--name', `small-${round}.bin`, file],
          ])
        const { ours, bare } = await sideBySide(31, {
          ours: (round) => timeCommand(words(round), env),
          bare: () => timeCommand([process.execPath, '-e', '0']),
        })
        return [
          {
            name: '',
            value: ours.medianMs - bare.medianMs,
            bound: 40,
            unit: 'ms',
            detail: `${formatTimes(ours)} - ${formatTimes(bare)}`,
          },
        ]
      } finally {
        await s3.close()
      }
    }),
}
