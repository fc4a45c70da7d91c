import type { IncomingMessage } from 'node:http'
import { sign } from 'aws4'
import type { EnvironmentCredentials } from '../../protocol/environment.js'
import { hostOf } from './address.js'
import { type Answer, exchange, readAnswer } from './exchange.js'
import type { Limits } from './limits.js'
import type { BodyPart } from './request-body.js'
import { type BucketPlace, objectAddress } from './s3-address.js'
import { s3Code, xmlText } from './s3-error.js'

const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
/** S3 refuses signatures from clocks that are 15 minutes off; a difference below this is not what it objected to. */
const NOTABLE_SKEW_MS = 5 * 60_000

/** One request to an object; lower-case header names. */
export interface S3Call {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE'
  readonly objectKey: string
  /** Encoded, without the question mark. */
  readonly query?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: readonly BodyPart[]
  /** Hex digest of the body. @default that of nothing */
  readonly sha256?: string
  readonly signal?: AbortSignal | undefined
  readonly onSent?: ((bytes: number) => void) | undefined
}

/** Requests to one bucket, signed with credentials (Signature Version 4). */
export class S3Client {
  readonly place: BucketPlace
  readonly #credentials: EnvironmentCredentials
  readonly #limits: Limits
  /** How far the store's clock is ahead of ours. */
  #skewMs = 0

  constructor(place: BucketPlace, credentials: EnvironmentCredentials, limits: Limits) {
    this.place = place
    this.#credentials = credentials
    this.#limits = limits
  }

  /** Sends a request once, whatever its answer; only a wrong clock of ours is corrected and the request sent again. */
  async call(call: S3Call): Promise<Answer> {
    const answer = await this.#send(call, readAnswer)
    return this.#learnSkew(answer) ? await this.#send(call, readAnswer) : answer
  }

  /** Like {@link call} for bodies too big to hold: a success is handed to `receive` as it arrives. */
  async download<T>(call: S3Call, receive: (response: IncomingMessage) => Promise<T>): Promise<T | Answer> {
    const read = async (response: IncomingMessage): Promise<T | Answer> =>
      response.statusCode === 200 ? await receive(response) : await readAnswer(response)
    const first = await this.#send(call, read)
    return isAnswer(first) && this.#learnSkew(first) ? await this.#send(call, read) : first
  }

  async #send<T>(call: S3Call, read: (response: IncomingMessage) => Promise<T>): Promise<T> {
    const address = objectAddress(this.place, call.objectKey, call.query)
    const signed = sign(
      {
        service: 's3',
        region: this.place.region,
        method: call.method,
        path: address.path,
        headers: {
          ...call.headers,
          host: hostOf(address),
          'x-amz-content-sha256': call.sha256 ?? EMPTY_SHA256,
          'x-amz-date': new Date(Date.now() + this.#skewMs).toISOString().replace(/[:-]|\.\d{3}/g, ''),
        },
      },
      {
        accessKeyId: this.#credentials.accessKeyId,
        secretAccessKey: this.#credentials.secretAccessKey,
        ...(this.#credentials.sessionToken === undefined
          ? {}
          : { sessionToken: this.#credentials.sessionToken }),
      },
    )
    return await exchange(
      {
        method: call.method,
        address,
        headers: signed.headers as Record<string, string>,
        ...(call.body === undefined ? {} : { body: call.body }),
        limits: this.#limits,
        askFirst: true,
        signal: call.signal,
        onSent: call.onSent,
      },
      read,
    )
  }

  /** True when the store's clock explains a refusal and was not known before. */
  #learnSkew(answer: Answer): boolean {
    // A HEAD has no body to say RequestTimeTooSkewed in, so every refusal is checked against the clock.
    if (
      answer.status !== 403 ||
      !['RequestTimeTooSkewed', 'AccessDenied', 'HTTP 403'].includes(s3Code(answer))
    ) {
      return false
    }
    const theirs = Date.parse(xmlText(answer.text, 'ServerTime') ?? answer.headers.date ?? '')
    if (Number.isNaN(theirs)) return false
    const skewMs = theirs - Date.now()
    if (Math.abs(skewMs - this.#skewMs) < NOTABLE_SKEW_MS) return false
    this.#skewMs = skewMs
    return true
  }
}

/** Whether what came back from {@link S3Client.download} is a refusal. */
export function isAnswer(value: unknown): value is Answer {
  return typeof value === 'object' && value !== null && 'status' in value && 'text' in value
}
