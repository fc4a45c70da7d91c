import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import {
  AbortMultipartUploadCommand,
  type CompletedPart,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import type { LimitFunction } from 'p-limit'
import type { ResultRecord } from '../../protocol/record.js'
import { s3ObjectKey, toS3Metadata } from '../../protocol/s3-layout.js'
import { mapS3Error } from '../../stores/s3/map-s3-error.js'
import type { S3Location } from '../../stores/s3/s3-location.js'
import type { Relay } from './endpoint-backend.js'
import type { StagedBody } from './staging-folder.js'

/** Size of a part; S3 takes 10,000 of at least 5 MiB: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
const PART_BYTES = 8 << 20
/** How far a client may get ahead of S3. What is left to do at its end then takes S3 well below a client's patience. */
const MAX_AHEAD_BYTES = 64 << 20

/** What a relay needs besides the record. */
export interface S3RelayOptions {
  readonly at: S3Location
  /** Shared by all relays of a backend: bounds the parts, and so the memory, that are under way at once. */
  readonly limit: LimitFunction
  /** Smaller bodies are left to a plain PUT. */
  readonly fromBytes: number
}

/** Passes an upload on to S3 part by part while it still arrives. Nothing shows there before {@link finish}. */
export class S3Relay implements Relay {
  readonly #record: ResultRecord
  readonly #options: S3RelayOptions
  readonly #target: { readonly Bucket: string; readonly Key: string }
  readonly #underWay = new Set<Promise<void>>()
  readonly #parts: CompletedPart[] = []
  #uploadId: Promise<string> | undefined
  #startedBytes = 0
  #passedBytes = 0
  #failure: unknown
  #finished = false

  /** @param record as it will be, except for its size */
  constructor(record: ResultRecord, options: S3RelayOptions) {
    this.#record = record
    this.#options = options
    this.#target = { Bucket: options.at.bucket, Key: s3ObjectKey(options.at.prefix, record.key) }
  }

  async advance(path: string, writtenBytes: number): Promise<void> {
    if (writtenBytes < this.#options.fromBytes) return
    while (this.#startedBytes + PART_BYTES <= writtenBytes) this.#startPart(path, PART_BYTES)
    // Once it has failed, the body is only staged, and put in one go at the end.
    while (this.#failure === undefined && writtenBytes - this.#passedBytes > MAX_AHEAD_BYTES) {
      await Promise.race(this.#underWay)
    }
  }

  /** Whether this very record can be finished: nothing of it changed since the body began, and S3 has been told of it. */
  carries(record: ResultRecord): boolean {
    const { values } = toS3Metadata(record)
    return (
      this.#uploadId !== undefined &&
      this.#failure === undefined &&
      record.key === this.#record.key &&
      record.content_type === this.#record.content_type &&
      isDeepStrictEqual(values, toS3Metadata(this.#record).values)
    )
  }

  /** Sends the rest and makes the object appear; rejects with `EXISTS` where S3 finds the key taken. */
  async finish({ path, sizeBytes }: StagedBody): Promise<void> {
    while (this.#startedBytes < sizeBytes) {
      this.#startPart(path, Math.min(PART_BYTES, sizeBytes - this.#startedBytes))
    }
    await Promise.all(this.#underWay)
    if (this.#failure !== undefined) throw this.#failure
    await this.#send(`complete the upload of ${this.#target.Key}`, async (UploadId) =>
      this.#options.at.client.send(
        new CompleteMultipartUploadCommand({
          ...this.#target,
          UploadId,
          MultipartUpload: { Parts: this.#parts },
          IfNoneMatch: '*',
        }),
      ),
    )
    this.#finished = true
  }

  async abandon(): Promise<void> {
    const uploadId = this.#uploadId
    if (this.#finished || uploadId === undefined) return
    this.#finished = true
    await Promise.all(this.#underWay)
    try {
      const UploadId = await uploadId
      await this.#options.at.client.send(new AbortMultipartUploadCommand({ ...this.#target, UploadId }))
    } catch {
      // What is left shows nowhere, and a lifecycle rule removes it; whoever is being answered has other worries.
    }
  }

  #startPart(path: string, sizeBytes: number): void {
    const start = this.#startedBytes
    this.#startedBytes += sizeBytes
    const part = this.#options
      .limit(() => this.#uploadPart(path, start, sizeBytes))
      .then(
        () => {
          this.#passedBytes += sizeBytes
        },
        (error: unknown) => {
          this.#failure ??= error
        },
      )
      .finally(() => this.#underWay.delete(part))
    this.#underWay.add(part)
  }

  async #uploadPart(path: string, start: number, sizeBytes: number): Promise<void> {
    if (this.#failure !== undefined || this.#finished) return
    const Body = await readPart(path, start, sizeBytes)
    const PartNumber = start / PART_BYTES + 1
    const ChecksumSHA256 = createHash('sha256').update(Body).digest('base64')
    const { ETag, ChecksumSHA256: kept } = await this.#send(
      `upload part ${PartNumber} of ${this.#target.Key}`,
      (UploadId) =>
        this.#options.at.client.send(
          new UploadPartCommand({ ...this.#target, UploadId, PartNumber, Body, ChecksumSHA256 }),
        ),
    )
    // Some stores check the digest without keeping it, and then do not want to hear of it again.
    this.#parts[PartNumber - 1] = {
      PartNumber,
      ...(ETag === undefined ? {} : { ETag }),
      ...(kept === undefined ? {} : { ChecksumSHA256: kept }),
    }
  }

  async #send<T>(doing: string, call: (uploadId: string) => Promise<T>): Promise<T> {
    this.#uploadId ??= this.#create()
    try {
      return await call(await this.#uploadId)
    } catch (error) {
      throw mapS3Error(error, doing)
    }
  }

  async #create(): Promise<string> {
    const { UploadId } = await this.#options.at.client.send(
      new CreateMultipartUploadCommand({
        ...this.#target,
        ContentType: this.#record.content_type,
        Metadata: toS3Metadata(this.#record).values,
        ChecksumAlgorithm: 'SHA256',
      }),
    )
    if (UploadId === undefined) throw new Error('S3 began an upload without an id')
    return UploadId
  }
}

async function readPart(path: string, start: number, sizeBytes: number): Promise<Buffer> {
  const file = await open(path, 'r')
  try {
    const part = Buffer.allocUnsafe(sizeBytes)
    const { bytesRead } = await file.read(part, 0, sizeBytes, start)
    if (bytesRead < sizeBytes) throw new Error(`${path} lacks ${sizeBytes - bytesRead} bytes at ${start}`)
    return part
  } finally {
    await file.close()
  }
}
