import { ListObjectsV2Command } from '@aws-sdk/client-s3'
import { compiled } from '../support/dist.mjs'
import { plantTask, sealTask } from '../support/plant.mjs'
import { connect, startS3 } from '../support/s3.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

const { Conductor } = await import(compiled('index.js'))

const COUNT = 10_000
const ROUNDS = 9

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'results.list() of 10,000 results in S3 : a bare ListObjectsV2 loop',
  run: async () => {
    const s3 = await startS3()
    const client = connect(s3)
    try {
      await sealTask(s3, await plantTask(s3, 'sealed', COUNT))
      await plantTask(s3, 'open', COUNT)
      return await measure(s3, client)
    } finally {
      client.destroy()
      await s3.close()
    }
  },
}

/**
 * @param {import('../support/s3.mjs').BenchS3} s3
 * @param {import('@aws-sdk/client-s3').S3Client} client
 * @returns {Promise<import('../support/entry.mjs').Measure[]>}
 */
async function measure(s3, client) {
  const conductor = new Conductor({ env: s3.env })
  const list = async (/** @type {string} */ taskId, options = {}) => {
    const results = await conductor.results(taskId).list({ strict: true, ...options })
    if (results.length !== COUNT) throw new Error(`${results.length} results were listed, not ${COUNT}`)
  }
  try {
    const { sealed, open, bare } = await sideBySide(ROUNDS, {
      sealed: () => list('sealed'),
      open: () => list('open', { metadata: false }),
      bare: () => listBare(client, s3.bucket),
    })
    const against = formatTimes(bare)
    return [
      {
        name: ' sealed, with metadata',
        value: sealed.medianMs / bare.medianMs,
        bound: 1.3,
        unit: 'x',
        detail: `${formatTimes(sealed)} : ${against}`,
      },
      {
        name: ' unsealed, without metadata',
        value: open.medianMs / bare.medianMs,
        bound: 1.2,
        unit: 'x',
        detail: `${formatTimes(open)} : ${against}`,
      },
    ]
  } finally {
    await conductor.close()
  }
}

/** @param {import('@aws-sdk/client-s3').S3Client} client @param {string} bucket */
async function listBare(client, bucket) {
  const keys = []
  /** @type {string | undefined} */
  let token
  do {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: bucket, Prefix: 'results/open/', ContinuationToken: token }),
    )
    for (const { Key, Size } of page.Contents ?? []) keys.push({ Key, Size })
    token = page.NextContinuationToken
  } while (token !== undefined)
  if (keys.length !== COUNT) throw new Error(`${keys.length} objects were listed, not ${COUNT}`)
}
