import { createHash } from 'node:crypto'
import { ConductorError } from '../../errors.js'
import type { Grant, GrantPolicy, GrantS3 } from '../../protocol/grant.js'
import type { ResultRecord } from '../../protocol/record.js'
import { s3ObjectKey, s3SidecarKey, toPolicyFields, toS3Metadata } from '../../protocol/s3-layout.js'
import { nowMs } from '../clock.js'
import type { Body } from '../spool/stage.js'
import { parseAddress } from './address.js'
import { exchange, readAnswer } from './exchange.js'
import { makeForm } from './form.js'
import { type Limits, tierDeadlineMs } from './limits.js'
import type { DeliveryContext, RemoteStore } from './remote-store.js'
import type { BodyPart } from './request-body.js'
import { type RetryOptions, withRetry } from './retry.js'
import { s3Error } from './s3-error.js'
import { toBase64 } from './s3-headers.js'
import { S3_ATTEMPTS } from './s3-store.js'

interface PostedObject {
  readonly objectKey: string
  readonly fileName: string
  readonly contentType: string
  readonly metadata: Readonly<Record<string, string>>
  readonly body: readonly BodyPart[]
  readonly sizeBytes: number
  readonly sha256: string
}

/** S3 through a grant's POST policy: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html */
export class S3PolicyStore implements RemoteStore {
  readonly tier = 's3'
  readonly granted = true
  readonly #grant: Grant
  readonly #s3: GrantS3
  readonly #policy: GrantPolicy
  readonly #limits: Limits

  constructor(grant: Grant, s3: GrantS3, policy: GrantPolicy, limits: Limits) {
    this.#grant = grant
    this.#s3 = s3
    this.#policy = policy
    this.#limits = limits
  }

  async store(record: ResultRecord, body: Body, context: DeliveryContext): Promise<string> {
    const { values, sidecar } = toS3Metadata(record)
    const objectKey = s3ObjectKey(this.#s3.prefix, record.key, { sidecar })
    const retry: RetryOptions = {
      attempts: S3_ATTEMPTS,
      deadlineAtMs: nowMs() + tierDeadlineMs(this.#limits, body.sizeBytes),
      signal: context.signal,
    }
    const location = `s3://${this.#s3.bucket}/${objectKey}`
    context.foresee?.(location)
    const common = { fileName: record.name, metadata: values }
    if (sidecar) {
      const text = Buffer.from(`${JSON.stringify(record)}\n`)
      const object: PostedObject = {
        ...common,
        objectKey: s3SidecarKey(objectKey),
        metadata: { sha256: record.sha256, 'created-at': record.created_at },
        contentType: 'application/json',
        body: [text],
        sizeBytes: text.length,
        sha256: createHash('sha256').update(text).digest('hex'),
      }
      await withRetry(() => this.#post(object, context), retry)
    }
    const object: PostedObject = {
      ...common,
      objectKey,
      contentType: record.content_type,
      body: [{ path: body.path, start: 0, end: body.sizeBytes }],
      sizeBytes: body.sizeBytes,
      sha256: body.sha256,
    }
    await withRetry(() => this.#post(object, context), retry)
    return location
  }

  async #post(object: PostedObject, { signal, onSent }: DeliveryContext): Promise<void> {
    if (object.sizeBytes > this.#policy.max_bytes) {
      const line = `${object.sizeBytes} bytes are more than the grant's limit of ${this.#policy.max_bytes}`
      throw new ConductorError('TOO_LARGE', line)
    }
    const form = makeForm(this.#fields(object), object)
    const answer = await exchange(
      {
        method: 'POST',
        address: parseAddress('S3 grant URL', this.#policy.url),
        headers: { 'content-type': form.contentType },
        body: form.body,
        limits: this.#limits,
        askFirst: true,
        signal,
        onSent,
      },
      readAnswer,
    )
    if (answer.status >= 200 && answer.status < 300) return
    const error = s3Error(answer, 'POST')
    // RGW says AccessDenied without a word for a policy whose time is up.
    if (error.code === 'ACCESS_DENIED' && Date.parse(this.#grant.expires_at) <= Date.now()) {
      throw new ConductorError('EXPIRED', `${error.message}; the grant expired at ${this.#grant.expires_at}`)
    }
    throw error
  }

  /** The policy's own fields stand as they are; of ours only those may be added that it declares. */
  #fields(object: PostedObject): Record<string, string> {
    const given = this.#policy.fields
    const has = new Set(Object.keys(given).map((name) => name.toLowerCase()))
    const fields: Record<string, string> = { ...given, key: object.objectKey }
    const add = (name: string, value: string): void => {
      if (!has.has(name.toLowerCase())) fields[name] = value
    }
    add('Content-Type', object.contentType)
    // A condition counts as broken when its field is missing, so each declared name is sent, if need be empty.
    for (const [name, value] of Object.entries(toPolicyFields(object.metadata))) add(name, value)
    if (has.has('x-amz-checksum-algorithm')) add('x-amz-checksum-sha256', toBase64(object.sha256))
    return fields
  }
}
