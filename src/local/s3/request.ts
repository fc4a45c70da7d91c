import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { S3Error } from './errors.js'

/** The query of a request, percent-decoded. */
export interface Query {
  get(name: string): string | undefined
  has(name: string): boolean
  /** Every parameter, repeated ones as a list; what a signature covers. */
  readonly bag: Readonly<Record<string, string | string[]>>
}

/** A request with its address taken apart; nothing about it is trusted yet. */
export interface S3Request {
  readonly id: string
  readonly method: string
  /** The path as S3 signs it: decoded, then encoded in the one canonical way. */
  readonly canonicalPath: string
  readonly query: Query
  /** Lower-case names; repeated headers joined by a comma; bytes read as UTF-8. */
  readonly headers: Readonly<Record<string, string>>
  readonly bucket: string | undefined
  readonly key: string | undefined
  /** The body as it was sent; reading it answers `Expect: 100-continue`. */
  readonly body: AsyncIterable<Buffer>
}

/** Takes the address and the headers of a request apart. Throws `InvalidURI` when they are not UTF-8. */
export function parseRequest(message: IncomingMessage, body: AsyncIterable<Buffer>): S3Request {
  const url = message.url ?? '/'
  const queryStart = url.indexOf('?')
  const rawPath = queryStart === -1 ? url : url.slice(0, queryStart)
  if (!rawPath.startsWith('/')) throw new S3Error('InvalidURI')
  const path = decode(rawPath)
  const headers = readHeaders(message.rawHeaders)
  const { bucket, key } = splitAddress(path, headers.host ?? '')
  return {
    id: randomBytes(8).toString('hex').toUpperCase(),
    method: message.method ?? 'GET',
    canonicalPath: encodePath(path),
    query: parseQuery(queryStart === -1 ? '' : url.slice(queryStart + 1)),
    headers,
    bucket,
    key,
    body,
  }
}

/** The headers, and the `x-amz-*` parameters a presigned URL carries in their place. */
export function fieldsOf({ query, headers }: S3Request): Record<string, string> {
  const fields: Record<string, string> = Object.create(null)
  for (const name of Object.keys(query.bag)) {
    if (/^x-amz-/i.test(name)) fields[name.toLowerCase()] = query.get(name) ?? ''
  }
  return Object.assign(fields, headers)
}

/** Percent-encodes everything but unreserved characters, as S3 does in signatures and `encoding-type=url`. */
function encodeUri(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

/** {@link encodeUri}, slashes kept. */
export function encodePath(path: string): string {
  return encodeUri(path).replaceAll('%2F', '/')
}

/** Decodes percent-encoded UTF-8. Throws `InvalidURI` when it is not that. */
export function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new S3Error('InvalidURI', { cause })
  }
}

/** `bucket.localhost` names the bucket in the host; everything else is path style. */
function splitAddress(path: string, host: string): Pick<S3Request, 'bucket' | 'key'> {
  const virtual = /^(.+)\.localhost(?::\d+)?$/i.exec(host)?.[1]
  if (virtual !== undefined) return { bucket: virtual, key: path === '/' ? undefined : path.slice(1) }
  const slash = path.indexOf('/', 1)
  const bucket = slash === -1 ? path.slice(1) : path.slice(1, slash)
  const key = slash === -1 ? '' : path.slice(slash + 1)
  return { bucket: bucket === '' ? undefined : bucket, key: key === '' ? undefined : key }
}

function parseQuery(text: string): Query {
  // No prototype: a parameter may be called anything.
  const bag: Record<string, string | string[]> = Object.create(null)
  for (const pair of text.split('&')) {
    if (pair === '') continue
    const equals = pair.indexOf('=')
    const name = decode((equals === -1 ? pair : pair.slice(0, equals)).replaceAll('+', ' '))
    const value = equals === -1 ? '' : decode(pair.slice(equals + 1).replaceAll('+', ' '))
    const before = bag[name]
    bag[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value]
  }
  return {
    bag,
    has: (name) => bag[name] !== undefined,
    get: (name) => {
      const value = bag[name]
      return Array.isArray(value) ? value[0] : value
    },
  }
}

function readHeaders(rawHeaders: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = Object.create(null)
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] ?? '').toLowerCase()
    // Node reads header bytes as Latin-1; clients that send more than ASCII send UTF-8.
    const value = Buffer.from(rawHeaders[i + 1] ?? '', 'latin1').toString('utf8')
    const before = headers[name]
    headers[name] = before === undefined ? value : `${before},${value}`
  }
  return headers
}
