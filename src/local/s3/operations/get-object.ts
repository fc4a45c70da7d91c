import { pipeline } from 'node:stream/promises'
import { isAllowed } from '../auth/credentials.js'
import { S3Error } from '../errors.js'
import { readRange } from '../store/record-file.js'
import type { ObjectRecord } from '../store/records.js'
import { attributeHeaders } from './attributes.js'
import { readCondition } from './conditions.js'
import { addressOf, type Context, sendXml } from './context.js'
import { checksumHeaders } from './put-object.js'

interface Range {
  readonly start: number
  readonly sizeBytes: number
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html */
export async function getObject(context: Context): Promise<void> {
  const address = addressOf(context)
  const file = await context.store.bucket(address.bucket).open(address.key)
  if (file === undefined) throw absent(context)
  try {
    const answer = plan(context, file.record)
    if (answer === undefined) return
    context.response.writeHead(answer.status, answer.headers)
    await pipeline(readRange(file.handle, answer.range.start, answer.range.sizeBytes), context.response)
  } finally {
    await file.handle.close()
  }
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html */
export async function headObject(context: Context): Promise<void> {
  const address = addressOf(context)
  const object = context.store.bucket(address.bucket).head(address.key)
  if (object === undefined) throw absent(context)
  const answer = plan(context, object)
  if (answer !== undefined) context.response.writeHead(answer.status, answer.headers).end()
}

/** Decides status, headers and range; answers itself when the object was not modified. */
function plan(context: Context, object: ObjectRecord) {
  const { request } = context
  const validators = {
    etag: `"${object.etag}"`,
    'last-modified': new Date(object.lastModifiedMs).toUTCString(),
  }
  if (readCondition(request.headers, object) === 'not-modified') {
    context.response.writeHead(304, validators).end()
    return undefined
  }
  const part = partRange(request.query.get('partNumber'), object)
  const range = part ?? parseRange(request.headers.range, object.sizeBytes)
  const wantsChecksums = request.headers['x-amz-checksum-mode']?.toUpperCase() === 'ENABLED'
  const headers: Record<string, string | number> = {
    ...attributeHeaders(object),
    ...validators,
    ...overrides(context),
    'accept-ranges': 'bytes',
    'content-length': range?.sizeBytes ?? object.sizeBytes,
    // Checksums are of the whole object.
    ...(wantsChecksums && range === undefined ? checksumHeaders(object.checksums, object.checksumType) : {}),
  }
  if (part !== undefined) headers['x-amz-mp-parts-count'] = object.partSizesBytes?.length ?? 1
  if (range === undefined) return { status: 200, headers, range: { start: 0, sizeBytes: object.sizeBytes } }
  headers['content-range'] = `bytes ${range.start}-${range.start + range.sizeBytes - 1}/${object.sizeBytes}`
  return { status: 206, headers, range }
}

/** One satisfiable range, or undefined for the whole object: S3 ignores what it does not understand. */
function parseRange(header: string | undefined, sizeBytes: number): Range | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? '')
  if (match === null || (match[1] === '' && match[2] === '')) return undefined
  const [, first = '', last = ''] = match
  const start = first === '' ? Math.max(0, sizeBytes - Number(last)) : Number(first)
  const end = first === '' || last === '' ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1)
  if (first !== '' && last !== '' && Number(last) < start) return undefined
  if (start >= sizeBytes || end < start) {
    throw new S3Error('InvalidRange', {
      details: { RangeRequested: header ?? '', ActualObjectSize: String(sizeBytes) },
      headers: { 'content-range': `bytes */${sizeBytes}` },
    })
  }
  return { start, sizeBytes: end - start + 1 }
}

function partRange(text: string | undefined, object: ObjectRecord): Range | undefined {
  if (text === undefined) return undefined
  const sizes = object.partSizesBytes ?? [object.sizeBytes]
  const index = Number(text) - 1
  const sizeBytes = sizes[index]
  if (sizeBytes === undefined) {
    throw new S3Error('InvalidRange', { message: 'The requested partnumber is not satisfiable' })
  }
  if (sizeBytes === 0) return undefined
  return { start: sizes.slice(0, index).reduce((sum, size) => sum + size, 0), sizeBytes }
}

/** `response-content-type` and its like replace stored headers; they are signed, as the whole query is. */
function overrides({ request }: Context): Record<string, string> {
  const names = [
    'cache-control',
    'content-disposition',
    'content-encoding',
    'content-language',
    'content-type',
    'expires',
  ]
  const headers: Record<string, string> = {}
  for (const name of names) {
    const value = request.query.get(`response-${name}`)
    if (value === undefined) continue
    // Node would refuse to send the others.
    if (!/^[\x20-\x7e\xa0-\xff]*$/.test(value)) {
      throw new S3Error('InvalidArgument', {
        message: 'Header value cannot be represented using ISO-8859-1.',
        details: { ArgumentName: `response-${name}`, ArgumentValue: value },
      })
    }
    headers[name] = value
  }
  return headers
}

/** Without the right to list, S3 does not say whether a key exists. */
function absent({ request, identity }: Context): S3Error {
  const { bucket, key } = request
  return isAllowed(identity.credential, { action: 's3:ListBucket', bucket, path: key })
    ? new S3Error('NoSuchKey', { details: { Key: key ?? '' } })
    : new S3Error('AccessDenied')
}

/** The tags of an object. @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectTagging.html */
export async function getObjectTagging(context: Context): Promise<void> {
  const address = addressOf(context)
  const object = context.store.bucket(address.bucket).head(address.key)
  if (object === undefined) throw absent(context)
  sendXml(context, 'Tagging', [
    [
      'TagSet',
      object.attributes.tags.map(
        ([Key, Value]) =>
          [
            'Tag',
            [
              ['Key', Key],
              ['Value', Value],
            ],
          ] as const,
      ),
    ],
  ])
}
