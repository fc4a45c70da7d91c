import { type Checksums, openBody } from '../body/request-body.js'
import { fieldsOf } from '../request.js'
import { withDefault } from '../store/default-encryption.js'
import { checkKey, readAttributes } from './attributes.js'
import { writeCondition } from './conditions.js'
import { addressOf, type Context, sendEmpty, wholeSeconds } from './context.js'
import { checkSize, writeBody } from './write-body.js'

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html */
export async function putObject(context: Context): Promise<void> {
  const { request, store, now } = context
  const address = addressOf(context)
  checkKey(address.key)
  const bucket = store.bucket(address.bucket)
  const attributes = withDefault(readAttributes(fieldsOf(request)), bucket.encryption)
  const condition = writeCondition(request.headers)
  const body = openBody(request, context.identity)
  checkSize(body.sizeBytes)
  // Once before the body, to spare it, and once more when it is there.
  condition(bucket.head(address.key))
  const record = await writeBody(
    () => bucket.stage(),
    body,
    async (writer) => {
      const object = {
        key: address.key,
        sizeBytes: body.sizeBytes,
        checksums: body.verify(),
        etag: body.digests.get('md5').toString('hex'),
        lastModifiedMs: wholeSeconds(now()),
        attributes,
        checksumType: 'FULL_OBJECT' as const,
      }
      await bucket.commit(writer, object, condition)
      return object
    },
  )
  sendEmpty(context, 200, {
    etag: `"${record.etag}"`,
    ...attributes.encryption,
    ...checksumHeaders(record.checksums, 'FULL_OBJECT'),
  })
}

/** The response headers that name checksums. */
export function checksumHeaders(
  checksums: Checksums,
  type: 'FULL_OBJECT' | 'COMPOSITE',
): Record<string, string> {
  const headers = Object.entries(checksums).map(([algorithm, value]) => [
    `x-amz-checksum-${algorithm}`,
    value,
  ])
  return headers.length === 0 ? {} : { ...Object.fromEntries(headers), 'x-amz-checksum-type': type }
}
