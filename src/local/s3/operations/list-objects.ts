import { S3Error } from '../errors.js'
import { encodePath, type S3Request } from '../request.js'
import type { KeyPage } from '../store/key-index.js'
import type { ObjectRecord } from '../store/records.js'
import type { XmlElement } from '../xml.js'
import { bucketOf, type Context, sendXml } from './context.js'

const pageLimit = 1000

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html */
export async function listObjectsV2(context: Context): Promise<void> {
  const { request } = context
  const token = request.query.get('continuation-token')
  const startAfter = request.query.get('start-after')
  const listing = list(context, token === undefined ? startAfter : readToken(token))
  sendXml(context, 'ListBucketResult', [
    ...listing.head,
    ['KeyCount', listing.page.entries.length + listing.page.prefixes.length],
    ['ContinuationToken', token],
    ['NextContinuationToken', listing.page.next === undefined ? undefined : writeToken(listing.page.next)],
    ['StartAfter', startAfter === undefined ? undefined : listing.encode(startAfter)],
    ...listing.rows,
  ])
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjects.html */
export async function listObjects(context: Context): Promise<void> {
  const { request } = context
  const marker = request.query.get('marker')
  const listing = list(context, marker)
  const { next } = listing.page
  sendXml(context, 'ListBucketResult', [
    ...listing.head,
    ['Marker', listing.encode(marker ?? '')],
    // Without a delimiter, clients go on from the last key.
    ['NextMarker', next === undefined || !request.query.get('delimiter') ? undefined : listing.encode(next)],
    ...listing.rows,
  ])
}

/** `max-keys` and its like: a number, never more than 1,000. */
export function readLimit(request: S3Request, name: string): number {
  const text = request.query.get(name)
  if (text === undefined || text === '') return pageLimit
  if (!/^\d{1,9}$/.test(text)) {
    throw new S3Error('InvalidArgument', {
      message: `Provided ${name} not an integer or within integer range`,
      details: { ArgumentName: name, ArgumentValue: text },
    })
  }
  return Math.min(Number(text), pageLimit)
}

/** How keys are written into a listing: as they are, or percent-encoded where the client asks for it. */
export function keyEncoder(request: S3Request): (key: string) => string {
  const encoding = request.query.get('encoding-type')
  if (encoding === undefined) return (key) => key
  if (encoding === 'url') return encodePath
  throw new S3Error('InvalidArgument', {
    message: 'Invalid Encoding Method specified in Request',
    details: { ArgumentName: 'encoding-type', ArgumentValue: encoding },
  })
}

function list(context: Context, after: string | undefined) {
  const { request } = context
  const name = bucketOf(context)
  const bucket = context.store.bucket(name)
  const prefix = request.query.get('prefix') ?? ''
  const delimiter = request.query.get('delimiter')
  const limit = readLimit(request, 'max-keys')
  const encode = keyEncoder(request)
  const page: KeyPage<ObjectRecord> =
    limit === 0
      ? { entries: [], prefixes: [], next: undefined }
      : bucket.page({ prefix, delimiter, after: after === '' ? undefined : after, limit })
  const head: XmlElement[] = [
    ['Name', name],
    ['Prefix', encode(prefix)],
    ['Delimiter', delimiter === undefined ? undefined : encode(delimiter)],
    ['MaxKeys', limit],
    ['EncodingType', request.query.get('encoding-type')],
    ['IsTruncated', page.next !== undefined],
  ]
  const rows: XmlElement[] = [
    ...page.entries.map(([key, object]): XmlElement => ['Contents', contents(encode(key), object)]),
    ...page.prefixes.map((rolled): XmlElement => ['CommonPrefixes', [['Prefix', encode(rolled)]]]),
  ]
  return { page, head, rows, encode }
}

function contents(key: string, object: ObjectRecord): XmlElement[] {
  return [
    ['Key', key],
    ['LastModified', new Date(object.lastModifiedMs).toISOString()],
    ['ETag', `"${object.etag}"`],
    ...Object.keys(object.checksums).map((name): XmlElement => ['ChecksumAlgorithm', name.toUpperCase()]),
    ['Size', object.sizeBytes],
    ['StorageClass', object.attributes.headers['x-amz-storage-class'] ?? 'STANDARD'],
  ]
}

function writeToken(last: string): string {
  return Buffer.from(`1${last}`).toString('base64url')
}

function readToken(token: string): string {
  const text = Buffer.from(token, 'base64url').toString('utf8')
  if (!text.startsWith('1')) {
    throw new S3Error('InvalidArgument', {
      message: 'The continuation token provided is incorrect',
      details: { ArgumentName: 'continuation-token' },
    })
  }
  return text.slice(1)
}
