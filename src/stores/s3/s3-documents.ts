import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { DeleteObjectCommand, GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { ConductorError, isConductorError } from '../../errors.js'
import { mapS3Error } from './map-s3-error.js'
import { objectInput } from './object-options.js'
import { s3Call } from './s3-call.js'
import type { S3Location } from './s3-location.js'

/** A small text object, and the tag by which a later write can tell whether it is still this one. */
export interface S3Document {
  readonly text: string
  /** Undefined where the store sends none. */
  readonly etag: string | undefined
}

/** What must hold for a document to be written: nothing there (`null`), this tag there, or no matter what (`undefined`). */
export type ExpectedEtag = string | null | undefined

/** How a document is written. */
export interface WriteDocumentOptions {
  readonly expected: ExpectedEtag
  /** User metadata; ASCII. */
  readonly metadata?: Readonly<Record<string, string>> | undefined
  readonly signal: AbortSignal | undefined
}

/** How often a write is tried while another to the same object is under way, and what pause comes first. */
const MAX_UNDECIDED = 6
const UNDECIDED_PAUSE_MS = 50

/** Reads a small object as text; `undefined` when it does not exist, `TOO_LARGE` past the limit, which also bounds the memory used. */
export async function readS3Document(
  at: S3Location,
  objectKey: string,
  maxBytes: number,
  signal: AbortSignal | undefined,
): Promise<S3Document | undefined> {
  const doing = `get s3://${at.bucket}/${objectKey}`
  signal?.throwIfAborted()
  try {
    const { Body, ETag } = await at.client.send(
      new GetObjectCommand({ Bucket: at.bucket, Key: objectKey }),
      signal === undefined ? {} : { abortSignal: signal },
    )
    const chunks: Uint8Array[] = []
    let size = 0
    for await (const chunk of Body as Readable) {
      size += chunk.length
      if (size > maxBytes) {
        throw new ConductorError('TOO_LARGE', `${doing}: over ${maxBytes} bytes`)
      }
      chunks.push(chunk)
    }
    return { text: Buffer.concat(chunks).toString('utf8'), etag: ETag }
  } catch (error) {
    const mapped = mapS3Error(error, doing, signal)
    if (isConductorError(mapped) && mapped.code === 'NOT_FOUND') return undefined
    throw mapped
  }
}

/**
 * Writes a small JSON object, or with `undefined` an empty one, if what is expected there is there, else rejects with `EXISTS`;
 * resolves with its tag. A store that knows no conditional writes is asked without: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
 */
export async function writeS3Document(
  at: S3Location,
  objectKey: string,
  value: object | undefined,
  { expected, metadata, signal }: WriteDocumentOptions,
): Promise<string | undefined> {
  const command = (condition: { IfNoneMatch?: string; IfMatch?: string }): PutObjectCommand =>
    new PutObjectCommand({
      Bucket: at.bucket,
      Key: objectKey,
      // Where the length is left out, the SDK warns of what might be a stream.
      ...(value === undefined ? { Body: '', ContentLength: 0 } : { Body: `${JSON.stringify(value)}\n` }),
      ContentType: 'application/json',
      ...(metadata === undefined ? {} : { Metadata: { ...metadata } }),
      ...objectInput(at),
      ...condition,
    })
  const send = async (condition: { IfNoneMatch?: string; IfMatch?: string }): Promise<string | undefined> => {
    const doing = `put s3://${at.bucket}/${objectKey}`
    return (await s3Call(doing, (options) => at.client.send(command(condition), options), signal)).ETag
  }
  if (expected === undefined) return send({})
  // Without quotes: AWS takes both, Ceph RGW only this.
  const condition = expected === null ? { IfNoneMatch: '*' } : { IfMatch: expected.replaceAll('"', '') }
  try {
    for (let tries = 1; ; tries++) {
      try {
        return await send(condition)
      } catch (error) {
        if (!isUndecided(error) || tries === MAX_UNDECIDED) throw error
        await delay(UNDECIDED_PAUSE_MS * tries, undefined, { signal })
      }
    }
  } catch (error) {
    if (!isConductorError(error)) throw error
    if (error.code === 'UNSUPPORTED') return send({})
    // What was to be replaced is gone: as little what was expected as something else in its place.
    if (error.code !== 'NOT_FOUND') throw error
    throw new ConductorError('EXISTS', error.message, { cause: error })
  }
}

/**
 * Removes a small object if it is still the one with this tag, else rejects with `EXISTS`; one that is gone counts as removed. A
 * store that knows no condition here removes whatever is there, so that it has to be read just before:
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html
 */
export async function deleteS3Document(
  at: S3Location,
  objectKey: string,
  etag: string | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const send = async (condition: { IfMatch?: string }): Promise<void> => {
    const command = new DeleteObjectCommand({ Bucket: at.bucket, Key: objectKey, ...condition })
    try {
      const doing = `delete s3://${at.bucket}/${objectKey}`
      await s3Call(doing, (options) => at.client.send(command, options), signal)
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'NOT_FOUND') throw error
    }
  }
  try {
    await send(etag === undefined ? {} : { IfMatch: etag.replaceAll('"', '') })
  } catch (error) {
    if (!isConductorError(error) || error.code !== 'UNSUPPORTED') throw error
    await send({})
  }
}

/** Whether S3 could not say yet which of two writes came first. It is no more down for that, and the next answer tells. */
function isUndecided(error: unknown): boolean {
  return (
    isConductorError(error) &&
    error.cause instanceof Error &&
    error.cause.name === 'ConditionalRequestConflict'
  )
}
