import { randomBytes } from 'node:crypto'
import { open, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DeleteObjectCommand, ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { find, missingTime, peakMemory, timeCommand } from '../support/command.mjs'
import { compiled } from '../support/dist.mjs'
import { forEachPersister, storeToS3 } from '../support/persisters.mjs'
import { connect, startS3 } from '../support/s3.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

const { mintGrant } = await import(compiled('grants/mint-grant.js'))

const SIZE_MIB = 1024
const ROUNDS = 3

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'persist-result of 1 GB to S3 : curl -T of it',
  missing: async () => ((await find('curl')) === undefined ? 'curl is not installed' : missingTime()),
  run: () =>
    withScratch(async (folder) => {
      const file = join(folder, 'big.bin')
      await writeRandom(file, SIZE_MIB)
      const s3 = await startS3()
      const client = connect(s3)
      try {
        return await forEachPersister((persister) => measure(persister, { folder, file, s3, client }))
      } finally {
        client.destroy()
        await s3.close()
      }
    }),
}

/**
 * @param {import('../support/persisters.mjs').Persister} persister
 * @param {{ folder: string, file: string, s3: import('../support/s3.mjs').BenchS3, client: import('@aws-sdk/client-s3').S3Client }} where
 * @returns {Promise<import('../support/entry.mjs').Measure[]>}
 */
async function measure(persister, { folder, file, s3, client }) {
  const spool = join(folder, 'spool')
  const grantFile = join(folder, 'grant.json')
  await writeFile(grantFile, JSON.stringify(await grantFor(s3, client)))
  const place = { WORKER_RESULTS_LOCAL_DIR: spool, WORKER_ID: 'bench' }
  const withKeys = { ...place, ...s3.env }
  const withGrant = { ...place, WORKER_RESULTS_GRANT_FILE: grantFile }
  const { name, bounds } = persister
  const words = storeToS3(persister, file)
  const url = await getSignedUrl(client, new PutObjectCommand({ Bucket: s3.bucket, Key: 'bare/big.bin' }))

  // What a round leaves would fill the disk and, kept in the page cache, slow the next one down.
  const cleanUp = async () => {
    await rm(spool, { recursive: true, force: true })
    await emptyBucket(client, s3.bucket)
  }
  const timed = async (
    /** @type {readonly [string, ...string[]]} */ command,
    /** @type {Record<string, string>} */ env,
  ) => {
    const ms = await timeCommand(command, env)
    await cleanUp()
    return ms
  }
  const { keys, grant, curl } = await sideBySide(ROUNDS, {
    keys: () => timed(words, withKeys),
    grant: () => timed(words, withGrant),
    curl: () => timed(['curl', '-sS', '--fail', '-o', '/dev/null', '-T', file, url], {}),
  })
  const megabytes = { keys: 0, grant: 0 }
  for (let round = 0; round < 3; round += 1) {
    megabytes.keys = Math.max(megabytes.keys, await peakMemory(words, withKeys, join(folder, 'peak')))
    await cleanUp()
    megabytes.grant = Math.max(megabytes.grant, await peakMemory(words, withGrant, join(folder, 'peak')))
    await cleanUp()
  }
  const against = formatTimes(curl)
  return [
    {
      name: ` ${name}, time, keys`,
      value: keys.medianMs / curl.medianMs,
      bound: bounds.big,
      unit: 'x',
      detail: `${formatTimes(keys)} : ${against}`,
    },
    {
      name: ` ${name}, time, grant`,
      value: grant.medianMs / curl.medianMs,
      bound: bounds.big,
      unit: 'x',
      detail: `${formatTimes(grant)} : ${against}`,
    },
    {
      name: ` ${name}, memory, keys`,
      value: megabytes.keys,
      bound: bounds.bigMegabytes,
      unit: 'MB',
      detail: 'largest of 3 runs',
    },
    {
      name: ` ${name}, memory, grant`,
      value: megabytes.grant,
      bound: bounds.bigMegabytes,
      unit: 'MB',
      detail: 'largest of 3 runs',
    },
  ]
}

/**
 * @param {import('../support/s3.mjs').BenchS3} s3
 * @param {import('@aws-sdk/client-s3').S3Client} client
 */
function grantFor(s3, client) {
  return mintGrant({
    taskId: 'bench',
    expiresAt: new Date(Date.now() + 3_600_000),
    s3: {
      client,
      bucket: s3.bucket,
      prefix: 'results',
      region: s3.region,
      endpoint: s3.url,
      close: () => {},
    },
    maxResultBytes: 2 * 2 ** 30,
  })
}

/** @param {import('@aws-sdk/client-s3').S3Client} client @param {string} bucket */
async function emptyBucket(client, bucket) {
  const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: bucket }))
  for (const { Key } of Contents) await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }))
}

/** @param {string} path @param {number} mebibytes */
async function writeRandom(path, mebibytes) {
  const file = await open(path, 'w')
  try {
    for (let i = 0; i < mebibytes; i += 1) await file.write(randomBytes(1 << 20))
    await file.sync()
  } finally {
    await file.close()
  }
}
