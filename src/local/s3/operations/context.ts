import type { ServerResponse } from 'node:http'
import type { Identity } from '../auth/authenticate.js'
import { S3Error } from '../errors.js'
import type { S3Request } from '../request.js'
import type { Store } from '../store/store.js'
import { renderXml, type XmlElement } from '../xml.js'

/** What an operation works with, once the request's signature is checked and its action is allowed. */
export interface Context {
  readonly request: S3Request
  readonly response: ServerResponse
  readonly identity: Identity
  readonly store: Store
  readonly region: string
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** The bucket and key of a request to an object. */
export function addressOf({ request }: Pick<Context, 'request'>): { bucket: string; key: string } {
  if (request.bucket === undefined || request.key === undefined) throw new S3Error('MethodNotAllowed')
  return { bucket: request.bucket, key: request.key }
}

/** The bucket of a request. */
export function bucketOf({ request }: Pick<Context, 'request'>): string {
  if (request.bucket === undefined) throw new S3Error('MethodNotAllowed')
  return request.bucket
}

/** S3 keeps times in whole seconds. */
export function wholeSeconds(timeMs: number): number {
  return Math.floor(timeMs / 1000) * 1000
}

/** Answers with an XML document. */
export function sendXml(
  { response }: Pick<Context, 'response'>,
  root: string,
  content: string | readonly XmlElement[],
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): void {
  const xml = renderXml(root, content)
  response
    .writeHead(status, {
      ...headers,
      'content-type': 'application/xml',
      'content-length': Buffer.byteLength(xml),
    })
    .end(xml)
}

/** Answers without a body. */
export function sendEmpty(
  { response }: Pick<Context, 'response'>,
  status: number,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, status === 204 ? headers : { ...headers, 'content-length': 0 }).end()
}
