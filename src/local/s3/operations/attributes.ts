import { S3Error } from '../errors.js'
import type { ObjectAttributes, ObjectRecord } from '../store/records.js'

const metadataPrefix = 'x-amz-meta-'
const metadataLimitBytes = 2048
const keyLimitBytes = 1024
const kept = [
  'cache-control',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-type',
  'expires',
  'x-amz-storage-class',
  'x-amz-website-redirect-location',
]
const harmlessAcls = ['private', 'bucket-owner-full-control', 'bucket-owner-read']
const notImplemented = [
  /^x-amz-server-side-encryption-customer-/,
  /^x-amz-object-lock-/,
  /^x-amz-grant-/,
  /^x-amz-write-offset-bytes$/,
]

/**
 * Reads what is stored with a body from headers or form fields, by lower-case name.
 * Throws for metadata over 2 KB, and for what would be dropped in silence otherwise.
 */
export function readAttributes(fields: Readonly<Record<string, string>>): ObjectAttributes {
  const headers: Record<string, string> = {}
  const metadata: Record<string, string> = {}
  const encryption: Record<string, string> = {}
  for (const [name, value] of Object.entries(fields)) {
    if (notImplemented.some((pattern) => pattern.test(name))) {
      throw new S3Error('NotImplemented', { details: { Header: name } })
    }
    if (name.startsWith(metadataPrefix)) metadata[name.slice(metadataPrefix.length)] = value.trim()
    else if (name.startsWith('x-amz-server-side-encryption')) encryption[name] = value
    else if (kept.includes(name)) headers[name] = checkValue(name, value)
  }
  if (fields['x-amz-acl'] !== undefined && !harmlessAcls.includes(fields['x-amz-acl'])) {
    throw new S3Error('AccessControlListNotSupported')
  }
  checkMetadataSize(metadata)
  checkEncryption(encryption)
  headers['content-type'] ||= 'binary/octet-stream'
  const encoding = withoutAwsChunked(headers['content-encoding'])
  if (encoding === undefined) delete headers['content-encoding']
  else headers['content-encoding'] = encoding
  return { headers, metadata, encryption, tags: parseTags(fields['x-amz-tagging']) }
}

/** The response headers of a stored object, besides those of its body. */
export function attributeHeaders({ attributes }: ObjectRecord): Record<string, string> {
  const headers: Record<string, string> = { ...attributes.encryption }
  for (const [name, value] of Object.entries(attributes.headers)) {
    // Node sends one byte for one character, so this sends the UTF-8 that came in.
    headers[name] = Buffer.from(value).toString('latin1')
  }
  if (headers['x-amz-storage-class'] === 'STANDARD') delete headers['x-amz-storage-class']
  for (const [name, value] of Object.entries(attributes.metadata)) {
    headers[metadataPrefix + name] = encodeWord(value)
  }
  if (attributes.tags.length > 0) headers['x-amz-tagging-count'] = String(attributes.tags.length)
  return headers
}

/** Throws `KeyTooLongError` for a key over 1,024 bytes. */
export function checkKey(key: string): void {
  const sizeBytes = Buffer.byteLength(key)
  if (sizeBytes > keyLimitBytes) {
    throw new S3Error('KeyTooLongError', {
      details: { Size: String(sizeBytes), MaxSizeAllowed: String(keyLimitBytes) },
    })
  }
}

function checkMetadataSize(metadata: Readonly<Record<string, string>>): void {
  let sizeBytes = 0
  for (const [name, value] of Object.entries(metadata))
    sizeBytes += Buffer.byteLength(name) + Buffer.byteLength(value)
  if (sizeBytes > metadataLimitBytes) {
    throw new S3Error('MetadataTooLarge', {
      details: { Size: String(sizeBytes), MaxSizeAllowed: String(metadataLimitBytes) },
    })
  }
}

/** Form fields can hold line breaks, which must not come back as headers. */
function checkValue(name: string, value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
  if (/[\u0000-\u001f\u007f]/.test(value)) {
    throw new S3Error('InvalidArgument', {
      message: 'Header value contains control characters.',
      details: { ArgumentName: name },
    })
  }
  return value
}

function checkEncryption(encryption: Readonly<Record<string, string>>): void {
  const method = encryption['x-amz-server-side-encryption']
  if (method !== undefined && !['AES256', 'aws:kms', 'aws:kms:dsse'].includes(method)) {
    throw new S3Error('InvalidArgument', {
      message: 'The encryption method specified is not supported',
      details: { ArgumentName: 'x-amz-server-side-encryption', ArgumentValue: method },
    })
  }
}

/** Framing of the transfer is not part of what is stored. */
function withoutAwsChunked(encoding: string | undefined): string | undefined {
  const rest = (encoding ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '' && part !== 'aws-chunked')
  return rest.length === 0 ? undefined : rest.join(',')
}

function parseTags(text: string | undefined): [name: string, value: string][] {
  const tags = [...new URLSearchParams(text ?? '')]
  const names = new Set(tags.map(([name]) => name))
  if (names.size < tags.length)
    throw new S3Error('InvalidTag', { message: 'Cannot provide multiple Tags with the same key' })
  if (tags.length > 10) throw new S3Error('InvalidTag', { message: 'Object tags cannot be greater than 10' })
  if (tags.some(([name, value]) => name === '' || name.length > 128 || value.length > 256)) {
    throw new S3Error('InvalidTag')
  }
  return tags
}

/** What is not ASCII comes back from S3 in the encoding of mail headers (RFC 2047). */
function encodeWord(value: string): string {
  return /^[\x20-\x7e]*$/.test(value) ? value : `=?UTF-8?B?${Buffer.from(value).toString('base64')}?=`
}
