import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { find, timeCommand } from '../support/command.mjs'
import { compiled, SCRIPT } from '../support/dist.mjs'
import { connect, startS3 } from '../support/s3.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

const { mintGrant } = await import(compiled('grants/mint-grant.js'))

/** Shells that images have as their `sh`. @type {readonly (readonly [string, ...string[]])[]} */
const SHELLS = [['dash'], ['busybox', 'sh'], ['bash']]

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
        const { bucket, region, url: endpoint } = s3
        const grant = await mintGrant({
          taskId: 'bench',
          expiresAt: new Date(Date.now() + 3_600_000),
          s3: { client, bucket, prefix: 'results', region, endpoint, close: () => {} },
          maxResultBytes: 1 << 20,
        })
        const place = { WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), WORKER_ID: 'bench' }
        const ways = {
          keys: { ...place, ...s3.env },
          grant: { ...place, WORKER_RESULTS_GRANT: JSON.stringify(grant) },
        }
        /** @type {Record<string, (round: number) => Promise<number>>} */
        const contestants = {
          curl: async (round) => {
            const put = new PutObjectCommand({ Bucket: bucket, Key: `bare/${round}.bin` })
            return timeCommand(['curl', '-sS', '-f', '-T', file, await getSignedUrl(client, put)])
          },
        }
        for (const [name, ...args] of SHELLS) {
          if ((await find(name)) === undefined) continue
          for (const [way, env] of Object.entries(ways)) {
            const words = /** @type {const} */ ([
              name,
              ...args,
              SCRIPT,
              '--quiet',
              '--require',
              's3',
              '--name',
            ])
            // Names of their own, since one name is stored once a second.
            contestants[`${name}, ${way}`] = (round) =>
              timeCommand([...words, `${name}-${way}-${round}.bin`, file], env)
          }
        }
        const { curl, ...ours } = await sideBySide(21, contestants)
        if (curl === undefined) throw new Error('curl was not measured')
        return Object.entries(ours).map(([name, times]) => ({
          name: ` ${name}`,
          value: times.medianMs - 2 * curl.medianMs,
          bound: 30,
          unit: 'ms',
          detail: `${formatTimes(times)} - 2 x ${formatTimes(curl)}`,
        }))
      } finally {
        client.destroy()
        await s3.close()
      }
    }),
}
