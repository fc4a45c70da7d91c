import { createHash } from 'node:crypto'
import { ConductorError, isConductorError } from '../../errors.js'
import type { ResultRecord } from '../../protocol/record.js'
import { s3ObjectKey, s3SidecarKey, toS3Metadata } from '../../protocol/s3-layout.js'
import { nowMs } from '../clock.js'
import type { ResumeState } from '../spool/resume-file.js'
import type { Body } from '../spool/stage.js'
import { type Limits, tierDeadlineMs } from './limits.js'
import type { DeliveryContext, RemoteStore } from './remote-store.js'
import type { BodyPart } from './request-body.js'
import { type RetryOptions, withRetry } from './retry.js'
import type { S3Client } from './s3-client.js'
import { s3Error } from './s3-error.js'
import { metadataHeaders, toBase64 } from './s3-headers.js'

/** Attempts at one request; services have been seen to refuse three in a row and take the fourth. */
export const S3_ATTEMPTS = 8

/** Bodies from here on can go up in parts. */
const DIVISIBLE_FROM_BYTES = 64 << 20
/** Bodies beyond this go up in parts from the start: starting over costs more than the parts' own overhead. */
const LARGEST_SINGLE_PUT_BYTES = 1 << 30

/** An object about to be stored under a name that must be free. */
interface NewObject {
  readonly objectKey: string
  readonly body: readonly BodyPart[]
  readonly sha256: string
  readonly contentType: string
  /** Without `x-amz-meta-`. */
  readonly metadata: Readonly<Record<string, string>>
}

/** A body and all that goes with it. */
interface BodyUpload {
  readonly objectKey: string
  readonly record: ResultRecord
  readonly metadata: Readonly<Record<string, string>>
  readonly body: Body
  readonly context: DeliveryContext
  readonly retry: RetryOptions
}

/** Credentials that came with a grant, and what goes with them. */
export interface GrantedCredentials {
  /** Sent with each new object. */
  readonly headers: Readonly<Record<string, string>>
}

/** S3 with credentials, from the environment or of a grant. */
export class S3Store implements RemoteStore {
  readonly tier = 's3'
  readonly granted: boolean
  readonly #headers: Readonly<Record<string, string>>
  readonly #client: S3Client
  readonly #prefix: string
  readonly #limits: Limits
  /** Known only once a store has said 501; some have no conditional writes. */
  #conditional = true

  constructor(client: S3Client, prefix: string, limits: Limits, grant?: GrantedCredentials) {
    this.granted = grant !== undefined
    this.#headers = grant?.headers ?? {}
    this.#client = client
    this.#prefix = prefix
    this.#limits = limits
  }

  async store(record: ResultRecord, body: Body, context: DeliveryContext): Promise<string> {
    const { values, sidecar } = toS3Metadata(record)
    const objectKey = s3ObjectKey(this.#prefix, record.key, { sidecar })
    const retry: RetryOptions = {
      attempts: S3_ATTEMPTS,
      deadlineAtMs: nowMs() + tierDeadlineMs(this.#limits, body.sizeBytes),
      signal: context.signal,
    }
    const location = `s3://${this.#client.place.bucket}/${objectKey}`
    context.foresee?.(location)
    if (sidecar) await this.#putSidecar(s3SidecarKey(objectKey), record, context, retry)
    await this.#putBody({ objectKey, record, metadata: values, body, context, retry })
    return location
  }

  /**
   * One request is the fastest way for all but the biggest bodies. Where it broke off once, or a process died over it, parts
   * take over: what has arrived then need not be sent again.
   */
  async #putBody(upload: BodyUpload): Promise<void> {
    const { objectKey, record, metadata, body, context, retry } = upload
    const object: NewObject = {
      objectKey,
      body: [{ path: body.path, start: 0, end: body.sizeBytes }],
      sha256: body.sha256,
      contentType: record.content_type,
      metadata,
    }
    if (body.sizeBytes < DIVISIBLE_FROM_BYTES) return await this.#putNew(object, record, context, retry)
    const begun = context.resume?.load() !== undefined
    if (!begun && body.sizeBytes <= LARGEST_SINGLE_PUT_BYTES) {
      try {
        return await this.#putNew(object, record, context, { ...retry, attempts: 1 })
      } catch (error) {
        context.signal?.throwIfAborted()
        if (!isConductorError(error) || !error.retryable) throw error
      }
    }
    const { uploadInParts } = await import('./s3-multipart.js')
    const isThere = (): Promise<boolean> => this.#isThere(objectKey, record, context)
    await uploadInParts({ ...upload, client: this.#client, headers: this.#headers, isThere })
  }

  async abandon(resume: ResumeState): Promise<void> {
    const { abandonUpload } = await import('./s3-multipart.js')
    await abandonUpload(this.#client, resume)
  }

  /** The record goes first, so that whoever sees the object finds its metadata. */
  async #putSidecar(
    objectKey: string,
    record: ResultRecord,
    context: DeliveryContext,
    retry: RetryOptions,
  ): Promise<void> {
    const text = Buffer.from(`${JSON.stringify(record)}\n`)
    const object: NewObject = {
      objectKey,
      body: [text],
      sha256: createHash('sha256').update(text).digest('hex'),
      contentType: 'application/json',
      metadata: { sha256: record.sha256, 'created-at': record.created_at },
    }
    await this.#putNew(object, record, context, retry)
  }

  async #putNew(
    object: NewObject,
    record: ResultRecord,
    context: DeliveryContext,
    retry: RetryOptions,
  ): Promise<void> {
    await withRetry(async () => {
      if (!this.#conditional && (await this.#isThere(object.objectKey, record, context))) return
      try {
        await this.#put(object, context)
      } catch (error) {
        if (!isConductorError(error)) throw error
        if (error.code === 'UNSUPPORTED' && this.#conditional) {
          this.#conditional = false
          throw new ConductorError('UNSUPPORTED', error.message, { retryable: true, cause: error })
        }
        if (error.code !== 'EXISTS') throw error
        if (await this.#isThere(object.objectKey, record, context)) return
        // Refused as taken, yet not there: another writer is at it or gave up just now.
        throw new ConductorError('UNAVAILABLE', error.message, { retryable: true, cause: error })
      }
    }, retry)
  }

  async #put(object: NewObject, { signal, onSent }: DeliveryContext): Promise<void> {
    const answer = await this.#client.call({
      method: 'PUT',
      objectKey: object.objectKey,
      headers: {
        'content-type': object.contentType,
        'x-amz-checksum-sha256': toBase64(object.sha256),
        ...metadataHeaders(object.metadata),
        ...this.#headers,
        ...(this.#conditional ? { 'if-none-match': '*' } : {}),
      },
      body: object.body,
      sha256: object.sha256,
      signal,
      onSent,
    })
    if (answer.status !== 200) throw s3Error(answer, 'PUT')
  }

  /** Whether the very object is there already; rejects with `EXISTS` when another one has its name. */
  async #isThere(objectKey: string, record: ResultRecord, { signal }: DeliveryContext): Promise<boolean> {
    const answer = await this.#client.call({ method: 'HEAD', objectKey, signal })
    // A session of a grant may not list, and who may not list is told 403 of what does not exist.
    if (answer.status === 404 || (answer.status === 403 && this.granted)) return false
    if (answer.status !== 200) throw s3Error(answer, 'looking at the object that has this key')
    const created = answer.headers['x-amz-meta-created-at']
    const ours =
      answer.headers['x-amz-meta-sha256'] === record.sha256 &&
      (created === undefined || created === record.created_at)
    if (!ours) throw new ConductorError('EXISTS', `another result has the key ${record.key}`)
    return true
  }
}
