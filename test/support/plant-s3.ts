import { PutObjectCommand } from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import type { ResultRecord } from '../../src/protocol/record.js'
import { s3ObjectKey, s3SidecarKey, toS3Metadata } from '../../src/protocol/s3-layout.js'
import type { S3Location } from '../../src/stores/s3/s3-location.js'
import { recordFor } from './records.js'

/** Puts results into a bucket as a persister does, with plain SDK calls. */
export async function plantInS3(
  at: S3Location,
  results: readonly { readonly record: ResultRecord; readonly body: Uint8Array }[],
): Promise<void> {
  const limit = pLimit(16)
  await Promise.all(
    results.map(({ record, body }) =>
      limit(async () => {
        const Key = s3ObjectKey(at.prefix, record.key)
        const { values, sidecar } = toS3Metadata(record)
        if (sidecar) await putText(at, s3SidecarKey(Key), JSON.stringify(record))
        await at.client.send(
          new PutObjectCommand({
            Bucket: at.bucket,
            Key,
            Body: body,
            ContentType: record.content_type,
            Metadata: values,
          }),
        )
      }),
    ),
  )
}

/** Puts things under a task's prefix that no listing may take for results. */
export async function plantJunkInS3(at: S3Location, taskId: string): Promise<void> {
  const whole = recordFor({ taskId, name: 'orphan' }, Buffer.from('x'))
  const names = ['notes.txt', '20260114-120000', '20260230-120000-no-such-day', '20260114-120000-a/b', '']
  for (const name of names) await putText(at, `${at.prefix}/${taskId}/${name}`, 'x')
  await putText(at, s3SidecarKey(s3ObjectKey(at.prefix, whole.key)), JSON.stringify(whole))
}

async function putText(at: S3Location, key: string, text: string): Promise<void> {
  await at.client.send(new PutObjectCommand({ Bucket: at.bucket, Key: key, Body: text }))
}

/** Puts a large sidecar beside a result that has its metadata in one. */
export async function inflateInS3(at: S3Location, record: ResultRecord, sizeBytes: number): Promise<void> {
  const Key = s3SidecarKey(s3ObjectKey(at.prefix, record.key))
  await at.client.send(new PutObjectCommand({ Bucket: at.bucket, Key, Body: Buffer.alloc(sizeBytes, 0x20) }))
}
