import { createHash } from 'node:crypto'
import type { Identity } from '../auth/authenticate.js'
import { sameSignature, scopeText } from '../auth/signer.js'
import { S3Error } from '../errors.js'
import { ByteReader } from './byte-reader.js'

const emptySha256 = createHash('sha256').digest('hex')
const lineLimitBytes = 16_384

/** What an aws-chunked body is made of. */
export interface ChunkedFormat {
  /** Each chunk, and the trailer, carries a signature that follows from the one before. */
  readonly signed: boolean
  /** Headers follow the last chunk. */
  readonly trailer: boolean
}

/** The format an `x-amz-content-sha256` announces; undefined when the body is not chunked. */
export function chunkedFormat(payloadHash: string): ChunkedFormat | undefined {
  switch (payloadHash) {
    case 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD':
      return { signed: true, trailer: false }
    case 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER':
      return { signed: true, trailer: true }
    case 'STREAMING-UNSIGNED-PAYLOAD-TRAILER':
      return { signed: false, trailer: true }
    default:
      return undefined
  }
}

/**
 * Yields the bytes inside an aws-chunked body and hands the trailing headers to `onTrailer` before it ends.
 * A chunk is yielded before its signature is checked: nothing may become visible until the iteration is over.
 * @see https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
 */
export async function* decodeAwsChunked(
  source: AsyncIterable<Buffer>,
  format: ChunkedFormat,
  chunks: Identity['chunks'],
  onTrailer: (trailer: ReadonlyMap<string, string>) => void,
): AsyncGenerator<Buffer, void, undefined> {
  const reader = new ByteReader(source)
  let previous = chunks.seed
  for (;;) {
    const header = /^([0-9a-fA-F]{1,12})(?:;chunk-signature=([0-9a-f]{64}))?$/.exec(await lineOf(reader))
    if (header === null || (format.signed && header[2] === undefined)) throw malformed()
    const sizeBytes = Number.parseInt(header[1] ?? '', 16)
    const hash = format.signed ? createHash('sha256') : undefined
    let seenBytes = 0
    for await (const piece of reader.take(sizeBytes)) {
      hash?.update(piece)
      seenBytes += piece.length
      yield piece
    }
    if (seenBytes < sizeBytes) throw new S3Error('IncompleteBody')
    if (hash !== undefined) {
      const text = `${emptySha256}\n${hash.digest('hex')}`
      previous = await checkSignature(chunks, 'PAYLOAD', previous, text, header[2] ?? '')
    }
    if (sizeBytes === 0) break
    if ((await lineOf(reader)) !== '') throw malformed()
  }
  const { lines, signature } = await readTrailer(reader)
  if (!(await reader.isAtEnd()) || (lines.length > 0 && !format.trailer)) throw malformed()
  if (!format.trailer) return
  if (format.signed) {
    const text = lines.map(([name, value]) => `${name}:${value}\n`).join('')
    const hash = createHash('sha256').update(text, 'latin1').digest('hex')
    await checkSignature(chunks, 'TRAILER', previous, hash, signature ?? '')
  }
  onTrailer(new Map(lines))
}

async function checkSignature(
  chunks: Identity['chunks'],
  kind: 'PAYLOAD' | 'TRAILER',
  previous: string,
  hashes: string,
  given: string,
): Promise<string> {
  const scope = scopeText(chunks.scope)
  const expected = await chunks.signer.signText(
    `AWS4-HMAC-SHA256-${kind}\n${chunks.date}\n${scope}\n${previous}\n${hashes}`,
  )
  if (!sameSignature(expected, given)) throw new S3Error('SignatureDoesNotMatch')
  return expected
}

async function readTrailer(reader: ByteReader) {
  const lines: [name: string, value: string][] = []
  let signature: string | undefined
  for (;;) {
    // Some clients leave the last empty line out.
    const line = await reader.line(lineLimitBytes)
    if (line === undefined || line === '') return { lines, signature }
    const colon = line.indexOf(':')
    if (colon < 1 || lines.length > 16) throw malformed()
    const name = line.slice(0, colon).trim().toLowerCase()
    const value = line.slice(colon + 1).trim()
    if (name === 'x-amz-trailer-signature') signature = value
    else lines.push([name, value])
  }
}

async function lineOf(reader: ByteReader): Promise<string> {
  const line = await reader.line(lineLimitBytes)
  if (line === undefined) throw new S3Error('IncompleteBody')
  return line
}

function malformed(): S3Error {
  return new S3Error('InvalidRequest', { message: 'The aws-chunked body is not well-formed.' })
}
