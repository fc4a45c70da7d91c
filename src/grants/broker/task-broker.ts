import { Readable } from 'node:stream'
import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { ConductorError, isConductorError } from '../../errors.js'
import {
  BROKER_LIMITS,
  type BrokerAnswer,
  type BrokerComplete,
  type BrokerCreate,
  type BrokerParts,
  type BrokerPut,
  type BrokerRequest,
  isBrokerId,
} from '../../protocol/broker.js'
import type { ResultRecord } from '../../protocol/record.js'
import { s3ObjectKey, toS3Metadata } from '../../protocol/s3-layout.js'
import { objectInput } from '../../stores/s3/object-options.js'
import type { S3Location } from '../../stores/s3/s3-location.js'
import { S3Store } from '../../stores/s3/s3-store.js'
import { putSidecar } from '../../stores/s3/sidecars.js'
import { parseBrokerRequest, partLength } from './parse-request.js'
import { Quota, type QuotaLimits } from './quota.js'
import { SIGNED_FOR_MS, signRequest } from './sign-request.js'
import { putAbilities } from './store-abilities.js'
import { abortTaskUploads, abortUpload, completeUpload, createUpload, signPart } from './uploads.js'

/** Swift's default limit on one value of metadata. */
const SWIFT_VALUE_BYTES = 256
/** Uploads of one task that may be open at once. */
const MAX_OPEN_UPLOADS = 64

/** What a worker was given, or refused; holds no signature. */
export interface GrantEvent {
  readonly taskId: string
  readonly op: BrokerRequest['op'] | 'unknown'
  /** Undefined when the request did not say, or not so that it could be read. */
  readonly key?: string | undefined
  /** What was signed for, in bytes. */
  readonly sizeBytes?: number | undefined
  /** Numbers of the parts that were signed for. */
  readonly parts?: readonly number[] | undefined
  /** Why it was refused. */
  readonly refused?: ConductorError | undefined
}

/** Whose requests are answered, and how far. */
export interface TaskBrokerOptions {
  readonly taskId: string
  readonly at: S3Location
  readonly limits: QuotaLimits
  readonly onGrant?: ((event: GrantEvent) => void) | undefined
}

/** An answer's own part, without the request's id. */
type Answer = Omit<BrokerAnswer, 'id' | 'requests'> & Partial<Pick<BrokerAnswer, 'requests'>>

/** Answers the requests of one task with what the conductor's own credentials sign; keeps nothing that a restart would lose. */
export class TaskBroker {
  readonly #options: TaskBrokerOptions
  readonly #at: S3Location
  readonly #store: S3Store
  readonly #quota: Quota
  /** Keys by upload. */
  readonly #uploads = new Map<string, string>()
  #creating = 0
  #ended = false

  constructor(options: TaskBrokerOptions) {
    this.#options = options
    this.#at = options.at
    this.#store = new S3Store(options.at)
    this.#quota = new Quota(
      options.limits,
      () => this.#list(),
      (key) => [...this.#uploads.values()].includes(key),
    )
  }

  /** Answers one request, whatever it is: never rejects. `undefined` for what has no id that it could be answered to. */
  async answer(text: string): Promise<BrokerAnswer | undefined> {
    const { taskId } = this.#options
    let request: BrokerRequest | undefined
    try {
      if (this.#ended) throw new ConductorError('CLOSED', 'the task has ended')
      request = parseBrokerRequest(taskId, text)
      return { id: request.id, requests: [], ...(await this.#grant(request)) }
    } catch (error) {
      const refused = isConductorError(error)
        ? error
        : new ConductorError('PROTOCOL', 'the request cannot be answered', { cause: error })
      this.#tell({ op: request?.op ?? 'unknown', key: keyOf(request), refused })
      const id = request?.id ?? idOf(text)
      if (id === undefined) return undefined
      const { code, message, retryable } = refused
      return { id, error: { code, message, retryable, missing: [] }, requests: [] }
    }
  }

  /** Refuses what comes from now on. */
  close(): void {
    this.#ended = true
  }

  /** Refuses what comes from now on, and frees the uploads that nobody will end. */
  async end(): Promise<void> {
    if (this.#ended) return
    this.close()
    if (this.#uploads.size > 0) await abortTaskUploads(this.#at, this.#options.taskId)
  }

  async #grant(request: BrokerRequest): Promise<Answer> {
    switch (request.op) {
      case 'put':
        return await this.#put(request)
      case 'create':
        return await this.#create(request)
      case 'parts':
        return await this.#parts(request)
      case 'complete':
        return await this.#complete(request)
      case 'abort': {
        await abortUpload(this.#at, {
          objectKey: s3ObjectKey(this.#at.prefix, request.key),
          uploadId: request.upload_id,
        })
        this.#uploads.delete(request.upload_id)
        this.#tell({ op: 'abort', key: request.key })
        return {}
      }
      case 'get': {
        const Key = s3ObjectKey(this.#at.prefix, request.key)
        const expiresAt = expiry()
        const signed = await signRequest(
          this.#at.client,
          new GetObjectCommand({ Bucket: this.#at.bucket, Key }),
        )
        this.#tell({ op: 'get', key: request.key })
        return { expiresAt, requests: [signed] }
      }
    }
  }

  async #put({ record, check = false }: BrokerPut): Promise<Answer> {
    const { conditional, laxHeaders } = await putAbilities(this.#at)
    // Without the condition a request that is sent late would write over another's.
    if ((check || !conditional) && (await this.#isThere(record))) return this.#stored(record)
    if (record.size > BROKER_LIMITS.maxPartBytes) {
      throw new ConductorError('TOO_LARGE', 'more than one request can store; it has to go in parts')
    }
    const { values, objectKey } = await this.#admit(record)
    if (laxHeaders && record.size === 0) return await this.#putEmpty(record)
    const expiresAt = expiry()
    const signed = await signRequest(
      this.#at.client,
      new PutObjectCommand({
        // Signed, it cannot be widened, neither by itself nor by `x-amz-grant-…`, which S3 does not take beside it.
        ...(laxHeaders ? { ACL: 'private' } : {}),
        Bucket: this.#at.bucket,
        Key: objectKey,
        ContentLength: record.size,
        ContentType: record.content_type,
        ChecksumSHA256: Buffer.from(record.sha256, 'hex').toString('base64'),
        Metadata: { ...values },
        ...(conditional ? { IfNoneMatch: '*' } : {}),
        ...objectInput(this.#at),
      }),
      record.sha256,
    )
    this.#tell({ op: 'put', key: record.key, sizeBytes: record.size })
    return { expiresAt, requests: [signed] }
  }

  /** A request without a body could be made a copy of any object by one more header, where that need not be signed. */
  async #putEmpty(record: ResultRecord): Promise<Answer> {
    try {
      await this.#store.put(record, Readable.from([]))
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'EXISTS' || !(await this.#isThere(record))) throw error
    }
    this.#tell({ op: 'put', key: record.key, sizeBytes: 0 })
    return this.#stored(record)
  }

  async #create({ record }: BrokerCreate): Promise<Answer> {
    if (await this.#isThere(record)) return this.#stored(record)
    this.#assertRoom()
    this.#creating += 1
    try {
      const { values, objectKey } = await this.#admit(record)
      const uploadId = await createUpload(this.#at, objectKey, record.content_type, values)
      this.#uploads.set(uploadId, record.key)
      this.#tell({ op: 'create', key: record.key, sizeBytes: record.size })
      return { uploadId }
    } finally {
      this.#creating -= 1
    }
  }

  async #parts({ key, upload_id: uploadId, size, part_bytes, parts }: BrokerParts): Promise<Answer> {
    // Begun before a restart, or never. Noted before anything is waited for, so that many at once are as many one by one.
    if (!this.#uploads.has(uploadId)) this.#assertRoom()
    this.#uploads.set(uploadId, key)
    await this.#quota.reserve(key, size)
    const objectKey = s3ObjectKey(this.#at.prefix, key)
    const expiresAt = expiry()
    const plans = parts.map(({ number, sha256 }) => ({
      objectKey,
      uploadId,
      number,
      sha256,
      sizeBytes: partLength(number, size, part_bytes),
    }))
    const requests = await Promise.all(plans.map((plan) => signPart(this.#at, plan)))
    const sizeBytes = plans.reduce((sum, plan) => sum + plan.sizeBytes, 0)
    this.#tell({ op: 'parts', key, sizeBytes, parts: plans.map(({ number }) => number) })
    return { expiresAt, requests }
  }

  async #complete({ record, upload_id: uploadId, part_bytes: partBytes }: BrokerComplete): Promise<Answer> {
    // Looked at in any case: some stores ignore the condition on this request.
    if (await this.#isThere(record)) return this.#stored(record)
    const { objectKey } = await this.#admit(record)
    const { conditional } = await putAbilities(this.#at)
    const upload = { objectKey, uploadId, sizeBytes: record.size, partBytes, conditional }
    const missing = await completeUpload(this.#at, upload)
    if (missing.length > 0) {
      const message = `${missing.length} parts are missing or have the wrong length`
      return { error: { code: 'INTEGRITY', retryable: true, message, missing } }
    }
    this.#uploads.delete(uploadId)
    this.#tell({ op: 'complete', key: record.key, sizeBytes: record.size })
    return this.#stored(record)
  }

  #assertRoom(): void {
    if (this.#uploads.size + this.#creating < MAX_OPEN_UPLOADS) return
    throw new ConductorError('UNAVAILABLE', `the task has ${MAX_OPEN_UPLOADS} uploads open`, {
      retryable: true,
    })
  }

  /** Counts a result, and stores the metadata that does not fit beside it. */
  async #admit(
    record: ResultRecord,
  ): Promise<{ readonly values: Readonly<Record<string, string>>; readonly objectKey: string }> {
    const { conditional } = await putAbilities(this.#at)
    // The one store known without conditions takes little metadata too: https://docs.openstack.org/swift/latest/api/object_api_v1_overview.html
    const { values, sidecar } = toS3Metadata(record, conditional ? undefined : SWIFT_VALUE_BYTES)
    const objectKey = s3ObjectKey(this.#at.prefix, record.key, { sidecar })
    await this.#quota.reserve(record.key, record.size)
    if (sidecar) await putSidecar(this.#at, record)
    return { values, objectKey }
  }

  /** Whether the very result is there; rejects with `EXISTS` when another one has its key. */
  async #isThere(record: ResultRecord): Promise<boolean> {
    const found = await this.#store.describe(record.key)
    if (found === undefined) return false
    const same =
      found.sha256 === record.sha256 &&
      found.size === record.size &&
      found.createdAt.getTime() === Date.parse(record.created_at)
    if (!same) throw new ConductorError('EXISTS', `another result has the key ${record.key}`)
    return true
  }

  #stored({ key }: ResultRecord): Answer {
    return { stored: `s3://${this.#at.bucket}/${s3ObjectKey(this.#at.prefix, key)}` }
  }

  async *#list(): AsyncGenerator<{ key: string; sizeBytes: number }> {
    for await (const { key, size } of this.#store.list(this.#options.taskId)) yield { key, sizeBytes: size }
  }

  #tell(event: Omit<GrantEvent, 'taskId'>): void {
    this.#options.onGrant?.({ taskId: this.#options.taskId, ...event })
  }
}

function expiry(): string {
  return new Date(Date.now() + SIGNED_FOR_MS).toISOString()
}

function keyOf(request: BrokerRequest | undefined): string | undefined {
  if (request === undefined) return undefined
  return 'record' in request ? request.record.key : request.key
}

/** The id of what is otherwise no request, so that its sender need not wait in vain. */
function idOf(text: string): string | undefined {
  try {
    const { id } = JSON.parse(text) as { id?: unknown }
    return typeof id === 'string' && isBrokerId(id) ? id : undefined
  } catch {
    return undefined
  }
}
