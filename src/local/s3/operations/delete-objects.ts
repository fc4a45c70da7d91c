import { isAllowed } from '../auth/credentials.js'
import { openBody, readSmallBody } from '../body/request-body.js'
import { S3Error } from '../errors.js'
import { asRecord, parseXml, type XmlElement } from '../xml.js'
import { checkKey } from './attributes.js'
import { writeCondition } from './conditions.js'
import { addressOf, bucketOf, type Context, sendEmpty, sendXml } from './context.js'

const documentLimitBytes = 2 * 2 ** 20

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html */
export async function deleteObject(context: Context): Promise<void> {
  const address = addressOf(context)
  checkKey(address.key)
  const condition = writeCondition(context.request.headers)
  await context.store.bucket(address.bucket).delete(address.key, condition)
  sendEmpty(context, 204)
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html */
export async function deleteObjects(context: Context): Promise<void> {
  const { request, identity } = context
  const name = bucketOf(context)
  const bucket = context.store.bucket(name)
  const hasChecksum = Object.keys(request.headers).some(
    (header) =>
      header === 'content-md5' || header === 'x-amz-trailer' || /^x-amz-checksum-(crc|sha)/.test(header),
  )
  if (!hasChecksum) {
    throw new S3Error('InvalidRequest', { message: 'Missing required header for this request: Content-MD5' })
  }
  const text = (await readSmallBody(openBody(request, identity), documentLimitBytes)).toString('utf8')
  const { keys, quiet } = readKeys(text)
  const results: XmlElement[] = []
  for (const key of keys) {
    if (!isAllowed(identity.credential, { action: 's3:DeleteObject', bucket: name, path: key })) {
      results.push([
        'Error',
        [
          ['Key', key],
          ['Code', 'AccessDenied'],
          ['Message', 'Access Denied'],
        ],
      ])
      continue
    }
    await bucket.delete(key)
    if (!quiet) results.push(['Deleted', [['Key', key]]])
  }
  sendXml(context, 'DeleteResult', results)
}

function readKeys(text: string): { keys: string[]; quiet: boolean } {
  const document = parseXml(text, 'Delete')
  const objects: unknown = document.Object
  if (!Array.isArray(objects) || objects.length > 1000) throw new S3Error('MalformedXML')
  const keys = objects.map((object: unknown) => {
    const key = asRecord(object)?.Key
    if (typeof key !== 'string' || key === '') throw new S3Error('MalformedXML')
    if (asRecord(object)?.VersionId !== undefined || asRecord(object)?.ETag !== undefined) {
      throw new S3Error('NotImplemented', {
        message: 'Only keys may be given in a multi-object delete here.',
      })
    }
    return key
  })
  return { keys, quiet: document.Quiet === 'true' }
}
