import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListPartsCommand,
  type Part,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { SignedRequest } from '../../protocol/broker.js'
import { s3TaskPrefix } from '../../protocol/s3-layout.js'
import { mapS3Error } from '../../stores/s3/map-s3-error.js'
import { objectInput } from '../../stores/s3/object-options.js'
import type { S3Location } from '../../stores/s3/s3-location.js'
import { partLength } from './parse-request.js'
import { signRequest } from './sign-request.js'

/** One upload in parts, by the store's own names. */
export interface UploadPlace {
  readonly objectKey: string
  readonly uploadId: string
}

/** What is to become of an upload's parts. */
export interface WholeUpload extends UploadPlace {
  readonly sizeBytes: number
  readonly partBytes: number
  /** Whether the store obeys `If-None-Match`. */
  readonly conditional: boolean
}

/** A part to be signed for. */
export interface PartPlan extends UploadPlace {
  readonly number: number
  readonly sizeBytes: number
  /** Hex. */
  readonly sha256: string
}

/** Begins an upload and gives its id. */
export async function createUpload(
  at: S3Location,
  objectKey: string,
  contentType: string,
  metadata: Readonly<Record<string, string>>,
): Promise<string> {
  const { UploadId } = await call(`begin an upload of ${objectKey}`, () =>
    at.client.send(
      new CreateMultipartUploadCommand({
        Bucket: at.bucket,
        Key: objectKey,
        ContentType: contentType,
        Metadata: { ...metadata },
        ChecksumAlgorithm: 'SHA256',
        ...objectInput(at),
      }),
    ),
  )
  if (UploadId === undefined) throw new ConductorError('PROTOCOL', 'the store gave no upload id')
  return UploadId
}

/** Signs the `PUT` of one part: of these bytes and no others. */
export async function signPart(at: S3Location, plan: PartPlan): Promise<SignedRequest> {
  const { objectKey, uploadId, number, sizeBytes, sha256 } = plan
  const command = new UploadPartCommand({
    Bucket: at.bucket,
    Key: objectKey,
    UploadId: uploadId,
    PartNumber: number,
    ContentLength: sizeBytes,
    ChecksumSHA256: Buffer.from(sha256, 'hex').toString('base64'),
  })
  return { part: number, ...(await signRequest(at.client, command, sha256)) }
}

/**
 * Makes the object out of the parts that the store has; what the worker says of them is not asked. Gives the numbers of parts
 * that are missing or of the wrong length, if any, and then leaves everything as it is.
 */
export async function completeUpload(at: S3Location, upload: WholeUpload): Promise<readonly number[]> {
  const { objectKey, uploadId, sizeBytes, partBytes, conditional } = upload
  const parts = await listParts(at, upload)
  const count = Math.ceil(sizeBytes / partBytes)
  const missing: number[] = []
  for (let number = 1; number <= count; number++) {
    if (parts.get(number)?.Size !== partLength(number, sizeBytes, partBytes)) missing.push(number)
  }
  if (missing.length > 0) return missing
  const used = Array.from({ length: count }, (_, i) => {
    const { PartNumber, ETag, ChecksumSHA256 } = parts.get(i + 1) ?? {}
    return { PartNumber, ETag, ...(ChecksumSHA256 === undefined ? {} : { ChecksumSHA256 }) }
  })
  await call(`complete the upload of ${objectKey}`, () =>
    at.client.send(
      new CompleteMultipartUploadCommand({
        Bucket: at.bucket,
        Key: objectKey,
        UploadId: uploadId,
        MultipartUpload: { Parts: used },
        ...(conditional ? { IfNoneMatch: '*' } : {}),
      }),
    ),
  )
  return []
}

async function listParts(at: S3Location, { objectKey, uploadId }: UploadPlace): Promise<Map<number, Part>> {
  const found = new Map<number, Part>()
  let marker: string | undefined
  for (;;) {
    const page = await call(`list the parts of ${objectKey}`, () =>
      at.client.send(
        new ListPartsCommand({
          Bucket: at.bucket,
          Key: objectKey,
          UploadId: uploadId,
          PartNumberMarker: marker,
        }),
      ),
    )
    for (const part of page.Parts ?? []) {
      if (part.PartNumber !== undefined) found.set(part.PartNumber, part)
    }
    const next = page.NextPartNumberMarker
    if (page.IsTruncated !== true || next === undefined || next === marker) return found
    marker = next
  }
}

/** Frees what the store keeps of an upload; one that is gone already is as good. */
export async function abortUpload(at: S3Location, { objectKey, uploadId }: UploadPlace): Promise<void> {
  try {
    await call(`give up the upload of ${objectKey}`, () =>
      at.client.send(
        new AbortMultipartUploadCommand({ Bucket: at.bucket, Key: objectKey, UploadId: uploadId }),
      ),
    )
  } catch (error) {
    if (!isConductorError(error) || error.code !== 'NOT_FOUND') throw error
  }
}

/** Frees every upload that a task has begun and not ended, in this process or before it. Gives how many there were. */
export async function abortTaskUploads(
  at: S3Location,
  taskId: string,
  { signal }: CallOptions = {},
): Promise<number> {
  const Prefix = s3TaskPrefix(at.prefix, taskId)
  let count = 0
  let keyMarker: string | undefined
  let idMarker: string | undefined
  for (;;) {
    signal?.throwIfAborted()
    const page = await call(`list the uploads of ${taskId}`, () =>
      at.client.send(
        new ListMultipartUploadsCommand({
          Bucket: at.bucket,
          Prefix,
          KeyMarker: keyMarker,
          UploadIdMarker: idMarker,
        }),
      ),
    )
    for (const { Key, UploadId } of page.Uploads ?? []) {
      // A store that ignores the prefix must not cost another task its uploads.
      if (Key === undefined || UploadId === undefined || !Key.startsWith(Prefix)) continue
      await abortUpload(at, { objectKey: Key, uploadId: UploadId })
      count += 1
    }
    if (page.IsTruncated !== true || page.NextKeyMarker === undefined) return count
    if (page.NextKeyMarker === keyMarker && page.NextUploadIdMarker === idMarker) return count
    keyMarker = page.NextKeyMarker
    idMarker = page.NextUploadIdMarker
  }
}

async function call<T>(doing: string, send: () => Promise<T>): Promise<T> {
  try {
    return await send()
  } catch (error) {
    throw mapS3Error(error, doing)
  }
}
