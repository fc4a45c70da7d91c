import type { Readable } from 'node:stream'
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { ConductorError, isConductorError } from '../../errors.js'
import { mapS3Error } from './map-s3-error.js'
import type { S3Location } from './s3-location.js'

/** A small object's text and version. */
export interface S3Text {
  readonly text: string
  readonly etag: string | undefined
}

/** Reads a small object as text; `undefined` when it does not exist, `TOO_LARGE` past the limit, which also bounds the memory used. */
export async function readS3Text(
  at: S3Location,
  objectKey: string,
  maxBytes: number,
  signal: AbortSignal | undefined,
): Promise<S3Text | undefined> {
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
