import { createHash } from 'node:crypto'
import { ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import { compiled } from '../support/dist.mjs'
import { connect, startS3 } from '../support/s3.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

const { Conductor } = await import(compiled('index.js'))
const { s3ObjectKey, toS3Metadata } = await import(compiled('protocol/s3-layout.js'))
const { openS3Location } = await import(compiled('stores/s3/s3-location.js'))
const { S3Manifests } = await import(compiled('stores/s3/s3-manifests.js'))

const COUNT = 10_000
const ROUNDS = 9

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'results.list() of 10,000 results in S3 : a bare ListObjectsV2 loop',
  run: async () => {
    const s3 = await startS3()
    const client = connect(s3)
    try {
      const sealed = makeRecords('sealed')
      const open = makeRecords('open')
      await plant(client, s3.bucket, [...sealed, ...open])
      await seal(s3, sealed)
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
        bound: 1.3,
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

/** @param {string} taskId */
function makeRecords(taskId) {
  return Array.from({ length: COUNT }, (_, i) => {
    const at = new Date(Date.UTC(2026, 0, 14) + i * 1000).toISOString()
    const timestamp = at.slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-')
    const name = `checkpoint-${i}.json`
    const key = `${taskId}/${timestamp}-${name}`
    return {
      v: 1,
      task_id: taskId,
      timestamp,
      name,
      key,
      size: 2,
      sha256: createHash('sha256').update('{}').digest('hex'),
      content_type: 'application/json',
      metadata: { status: 'partial', progress: i / COUNT },
      created_at: at,
      archive: null,
      stored: [{ tier: 's3', location: `s3://bench/results/${key}`, at }],
      errors: {},
    }
  })
}

/**
 * @param {import('@aws-sdk/client-s3').S3Client} client
 * @param {string} bucket
 * @param {readonly ReturnType<typeof makeRecords>[number][]} records
 */
async function plant(client, bucket, records) {
  const limit = pLimit(32)
  await Promise.all(
    records.map((record) =>
      limit(() =>
        client.send(
          new PutObjectCommand({
            Bucket: bucket,
            Key: s3ObjectKey('results', record.key),
            Body: '{}',
            ContentType: record.content_type,
            Metadata: toS3Metadata(record).values,
          }),
        ),
      ),
    ),
  )
}

/**
 * @param {import('../support/s3.mjs').BenchS3} s3
 * @param {ReturnType<typeof makeRecords>} results
 */
async function seal({ bucket, url, region, credentials }, results) {
  const location = openS3Location({ bucket, endpoint: url, region, credentials })
  await new S3Manifests(location).write({
    v: 1,
    task_id: 'sealed',
    sealed_at: new Date().toISOString(),
    outcome: 'succeeded',
    exit: { code: 0, signal: null },
    complete: true,
    attempts: [],
    results,
  })
  location.close()
}
