import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { find, timeCommand } from '../support/command.mjs'
import { forEachPersister, storeToS3 } from '../support/persisters.mjs'
import { startS3 } from '../support/s3.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'wall time of persist-result of 1 KB to S3 : aws s3 cp of it',
  missing: async () => ((await find('aws')) === undefined ? 'the AWS CLI is not installed' : undefined),
  run: () =>
    withScratch(async (folder) => {
      const aws = (await find('aws')) ?? 'aws'
      const file = join(folder, 'small.bin')
      await writeFile(file, randomBytes(1024))
      const s3 = await startS3()
      try {
        const env = { ...s3.env, WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), WORKER_ID: 'bench' }
        return await forEachPersister(async (persister) => {
          const { ours, theirs } = await sideBySide(11, {
            ours: (round) => timeCommand(storeToS3(persister, file, `${persister.name}-${round}.bin`), env),
            theirs: (round) =>
              timeCommand([aws, 's3', 'cp', '--quiet', file, `s3://${s3.bucket}/bare/${round}.bin`], s3.env),
          })
          return [
            {
              name: ` ${persister.name}`,
              value: ours.medianMs / theirs.medianMs,
              bound: persister.bounds.aws,
              unit: 'x',
              detail: `${formatTimes(ours)} : ${formatTimes(theirs)}`,
            },
          ]
        })
      } finally {
        await s3.close()
      }
    }),
}
