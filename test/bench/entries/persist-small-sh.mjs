import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { find, timeCommand } from '../support/command.mjs'
import { SCRIPT } from '../support/dist.mjs'
import { connect, startS3 } from '../support/s3.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'wall time that persist-result (sh) of 1 KB to S3 takes beyond twice a bare curl -T',
  missing: async () => ((await find('curl')) === undefined ? 'curl is not installed' : undefined),
  run: () =>
    withScratch(async (folder) => {
      const file = join(folder, 'small.bin')
      await writeFile(file, randomBytes(1024))
      const s3 = await startS3()
      const client = connect(s3)
      try {
        const env = { ...s3.env, WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), WORKER_ID: 'bench' }
        const { ours, bare } = await sideBySide(21, {
          ours: () => timeCommand(['sh', SCRIPT, '--quiet', '--require', 's3', file], env),
          bare: async (round) => {
            const put = new PutObjectCommand({ Bucket: s3.bucket, Key: `bare/${round}.bin` })
            return timeCommand(['curl', '-sS', '-f', '-T', file, await getSignedUrl(client, put)])
          },
        })
        return [
          {
            name: '',
            value: ours.medianMs - 2 * bare.medianMs,
            bound: 30,
            unit: 'ms',
            detail: `${formatTimes(ours)} - 2 x ${formatTimes(bare)}`,
          },
        ]
      } finally {
        client.destroy()
        await s3.close()
      }
    }),
}
