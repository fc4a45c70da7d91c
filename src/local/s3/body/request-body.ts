import type { Identity } from '../auth/authenticate.js'
import { S3Error } from '../errors.js'
import { fieldsOf, type S3Request } from '../request.js'
import { chunkedFormat, decodeAwsChunked } from './aws-chunked.js'
import { BodyDigests, type ChecksumAlgorithm, checksumAlgorithms, type DigestAlgorithm } from './digests.js'

/** Base64 checksums by algorithm, as S3 stores and returns them. */
export type Checksums = Partial<Record<ChecksumAlgorithm, string>>

/** A decoded body and the digests that must match before anything of it is kept. */
export interface RequestBody {
  /** What the client announced. */
  readonly sizeBytes: number
  /** The body's bytes; digests are computed as they pass. */
  readonly chunks: AsyncIterable<Buffer>
  /** Valid once `chunks` is exhausted. */
  readonly digests: BodyDigests
  /** Compares size and digests once `chunks` is exhausted; throws as S3 does, else returns what to store. */
  verify(): Checksums
}

const checksumHeader = 'x-amz-checksum-'
const notChecksums = ['x-amz-checksum-algorithm', 'x-amz-checksum-mode', 'x-amz-checksum-type']

/** Opens the body of a signed request. Throws when its length or the checksums asked for are not acceptable. */
export function openBody(request: S3Request, identity: Identity): RequestBody {
  const format = chunkedFormat(identity.payloadHash)
  const trailer = new Map<string, string>()
  const source = format
    ? decodeAwsChunked(request.body, format, identity.chunks, (lines) => {
        for (const [name, value] of lines) trailer.set(name, value)
      })
    : request.body
  const trailing = format?.trailer ? listOf(request.headers['x-amz-trailer']) : []
  // A presigned URL may carry checksums in its query. They are taken at their word, as the strictest stores do.
  const expected = checksumsIn(fieldsOf(request))
  const algorithms = new Set<DigestAlgorithm>(['md5'])
  for (const name of [...trailing, ...expected.keys()]) algorithms.add(algorithmOf(name))
  const signedHash = format ? undefined : signedPayloadHash(identity.payloadHash)
  if (signedHash !== undefined) algorithms.add('sha256')
  const contentMd5 = parseContentMd5(request.headers['content-md5'])
  const sizeBytes = declaredSize(request, format !== undefined)
  const digests = new BodyDigests(algorithms)
  let seenBytes = 0

  async function* chunks(): AsyncGenerator<Buffer, void, undefined> {
    for await (const chunk of source) {
      digests.update(chunk)
      seenBytes += chunk.length
      if (seenBytes > sizeBytes) throw new S3Error('IncompleteBody')
      yield chunk
    }
  }

  return {
    sizeBytes,
    chunks: chunks(),
    digests,
    verify() {
      if (seenBytes !== sizeBytes) throw new S3Error('IncompleteBody')
      if (contentMd5 !== undefined && !digests.get('md5').equals(contentMd5)) throw new S3Error('BadDigest')
      if (signedHash !== undefined) checkSignedHash(signedHash, digests.get('sha256').toString('hex'))
      for (const name of trailing) {
        const value = trailer.get(name)
        if (value === undefined)
          throw new S3Error('InvalidRequest', { message: `The trailer ${name} is missing.` })
        expected.set(name, value)
      }
      const checksums: Checksums = {}
      for (const [name, value] of expected) {
        const algorithm = algorithmOf(name)
        if (digests.get(algorithm).toString('base64') !== value) {
          throw new S3Error('BadDigest', {
            message: `The ${algorithm.toUpperCase()} you specified did not match the calculated checksum.`,
          })
        }
        checksums[algorithm] = value
      }
      return checksums
    },
  }
}

/** Reads a whole body into memory, at most `limitBytes`, and verifies it: for XML documents. */
export async function readSmallBody(body: RequestBody, limitBytes: number): Promise<Buffer> {
  if (body.sizeBytes > limitBytes) throw new S3Error('EntityTooLarge')
  const pieces: Buffer[] = []
  for await (const chunk of body.chunks) pieces.push(chunk)
  body.verify()
  return Buffer.concat(pieces)
}

/** The checksum values among headers or form fields, by header name. Throws for algorithms not known here. */
export function checksumsIn(fields: Readonly<Record<string, string>>): Map<string, string> {
  const found = new Map<string, string>()
  for (const [name, value] of Object.entries(fields)) {
    if (!name.startsWith(checksumHeader) || notChecksums.includes(name)) continue
    const sizeBytes = { crc32: 4, crc32c: 4, sha1: 20, sha256: 32 }[algorithmOf(name)]
    if (Buffer.from(value, 'base64').length !== sizeBytes) {
      throw new S3Error('InvalidRequest', { message: `Value for ${name} header is invalid.` })
    }
    found.set(name, value)
  }
  return found
}

/** The algorithm a checksum header is of. Throws `NotImplemented` when this server cannot compute it. */
export function algorithmOf(headerName: string): ChecksumAlgorithm {
  const name = headerName.slice(checksumHeader.length).toLowerCase()
  const algorithm = checksumAlgorithms.find((known) => known === name)
  if (algorithm === undefined) {
    throw new S3Error('NotImplemented', {
      message: `The checksum ${headerName} is not implemented here; use one of ${checksumAlgorithms.join(', ')}.`,
    })
  }
  return algorithm
}

function declaredSize(request: S3Request, chunked: boolean): number {
  const text = request.headers[chunked ? 'x-amz-decoded-content-length' : 'content-length']
  if (text === undefined || !/^\d+$/.test(text)) throw new S3Error('MissingContentLength')
  return Number(text)
}

function signedPayloadHash(payloadHash: string): string | undefined {
  if (payloadHash === 'UNSIGNED-PAYLOAD') return undefined
  if (/^[0-9a-f]{64}$/.test(payloadHash)) return payloadHash
  throw new S3Error('InvalidArgument', {
    message:
      'x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.',
  })
}

function checkSignedHash(signed: string, computed: string): void {
  if (signed === computed) return
  throw new S3Error('XAmzContentSHA256Mismatch', {
    details: { ClientComputedContentSHA256: signed, S3ComputedContentSHA256: computed },
  })
}

function parseContentMd5(text: string | undefined): Buffer | undefined {
  if (text === undefined) return undefined
  const digest = Buffer.from(text, 'base64')
  if (digest.length !== 16) throw new S3Error('InvalidDigest')
  return digest
}

function listOf(text: string | undefined): string[] {
  return (text ?? '')
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '')
}
