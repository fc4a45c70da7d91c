import { createHash, randomBytes } from 'node:crypto'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import { compiled } from './dist.mjs'
import { connect } from './s3.mjs'

/** @typedef {import('./s3.mjs').BenchS3} BenchS3 */

const { s3ObjectKey, toS3Metadata } = await import(compiled('protocol/s3-layout.js'))
const { openS3Location } = await import(compiled('stores/s3/s3-location.js'))
const { S3Manifests } = await import(compiled('stores/s3/s3-manifests.js'))

/**
 * Puts a task's results into the bucket as a persister does, and gives back their records. All have the same bytes.
 *
 * @param {BenchS3} s3
 * @param {string} taskId
 * @param {number} count
 * @param {number} [sizeBytes]
 */
export async function plantTask(s3, taskId, count, sizeBytes = 2) {
  const body = randomBytes(sizeBytes)
  const sha256 = createHash('sha256').update(body).digest('hex')
  const records = Array.from({ length: count }, (_, i) => {
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
      size: sizeBytes,
      sha256,
      content_type: 'application/json',
      metadata: { status: 'partial', progress: i / count },
      created_at: at,
      archive: null,
      stored: [{ tier: 's3', location: `s3://${s3.bucket}/results/${key}`, at }],
      errors: {},
    }
  })
  const client = connect(s3)
  const limit = pLimit(32)
  const put = (/** @type {(typeof records)[number]} */ record) =>
    client.send(
      new PutObjectCommand({
        Bucket: s3.bucket,
        Key: s3ObjectKey('results', record.key),
        Body: body,
        ContentType: record.content_type,
        Metadata: toS3Metadata(record).values,
      }),
    )
  try {
    await Promise.all(records.map((record) => limit(() => put(record))))
  } finally {
    client.destroy()
  }
  return records
}

/**
 * Writes a task's manifest, as a conductor does that saw it end.
 *
 * @param {BenchS3} s3
 * @param {Awaited<ReturnType<typeof plantTask>>} results
 */
export async function sealTask({ bucket, url, region, credentials }, results) {
  const location = openS3Location({ bucket, endpoint: url, region, credentials })
  await new S3Manifests(location).update(results[0]?.task_id, () => ({
    v: 1,
    task_id: results[0]?.task_id,
    sealed_at: new Date().toISOString(),
    outcome: 'succeeded',
    exit: { code: 0, signal: null },
    complete: true,
    attempts: [],
    results,
  }))
  location.close()
}
