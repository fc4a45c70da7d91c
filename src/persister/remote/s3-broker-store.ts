import { ConductorError, isConductorError } from '../../errors.js'
import type { GrantBroker, GrantS3 } from '../../protocol/grant.js'
import type { ResultRecord } from '../../protocol/record.js'
import { s3ObjectKey } from '../../protocol/s3-layout.js'
import { nowMs } from '../clock.js'
import type { ResumeState } from '../spool/resume-file.js'
import type { Body } from '../spool/stage.js'
import type { BrokerClient } from './broker-client.js'
import { type Limits, tierDeadlineMs } from './limits.js'
import type { DeliveryContext, RemoteStore } from './remote-store.js'
import { type RetryOptions, withRetry } from './retry.js'
import { sendSigned, signedError } from './signed-request.js'

const ATTEMPTS = 8
/** Bodies from here on can go in parts: what has arrived then need not be sent again. */
const DIVISIBLE_FROM_BYTES = 64 << 20
/** Bodies beyond this go in parts from the start: starting over costs more than the parts' own overhead. */
const LARGEST_SINGLE_PUT_BYTES = 1 << 30

/** S3 through requests that the conductor signs one at a time. */
export class S3BrokerStore implements RemoteStore {
  readonly tier = 's3'
  readonly granted = true
  readonly #client: BrokerClient
  readonly #broker: GrantBroker
  readonly #s3: GrantS3
  readonly #limits: Limits

  constructor(client: BrokerClient, broker: GrantBroker, s3: GrantS3, limits: Limits) {
    this.#client = client
    this.#broker = broker
    this.#s3 = s3
    this.#limits = limits
  }

  async store(record: ResultRecord, body: Body, context: DeliveryContext): Promise<string> {
    if (body.sizeBytes > this.#broker.max_bytes) {
      const line = `${body.sizeBytes} bytes are more than the grant's limit of ${this.#broker.max_bytes}`
      throw new ConductorError('TOO_LARGE', line)
    }
    const retry: RetryOptions = {
      attempts: ATTEMPTS,
      deadlineAtMs: nowMs() + tierDeadlineMs(this.#limits, body.sizeBytes),
      signal: context.signal,
    }
    const begun = context.resume?.load() !== undefined
    const inOne = body.sizeBytes <= Math.min(this.#broker.put_bytes, LARGEST_SINGLE_PUT_BYTES)
    if (body.sizeBytes === 0 || (inOne && !begun && body.sizeBytes < DIVISIBLE_FROM_BYTES)) {
      return await this.#put(record, body, context, retry)
    }
    if (inOne && !begun) {
      // One request is the fastest way; where it breaks off, parts take over.
      try {
        return await this.#put(record, body, context, { ...retry, attempts: 1 })
      } catch (error) {
        context.signal?.throwIfAborted()
        if (!isConductorError(error) || !error.retryable) throw error
      }
    }
    const { uploadByBroker } = await import('./broker-multipart.js')
    return await uploadByBroker({
      client: this.#client,
      limits: this.#limits,
      s3: this.#s3,
      record,
      body,
      context,
      retry,
    })
  }

  async abandon(resume: ResumeState): Promise<void> {
    const { abandonByBroker } = await import('./broker-multipart.js')
    await abandonByBroker(this.#client, this.#s3, resume)
  }

  async #put(
    record: ResultRecord,
    body: Body,
    context: DeliveryContext,
    retry: RetryOptions,
  ): Promise<string> {
    // Set once an attempt may have got through without our hearing of it.
    let check = false
    return await withRetry(async () => {
      const { stored, requests } = await this.#client.ask({ op: 'put', record, check }, context.signal)
      if (stored !== undefined) return stored
      check = true
      const [request] = requests
      if (request === undefined) throw new ConductorError('PROTOCOL', 'the broker signed nothing')
      const part = { path: body.path, start: 0, end: body.sizeBytes }
      const answer = await sendSigned(request, [part], this.#limits, context)
      if (answer.status !== 200) throw signedError(answer, 'PUT')
      return `s3://${this.#s3.bucket}/${s3ObjectKey(this.#s3.prefix, record.key)}`
    }, retry)
  }
}
