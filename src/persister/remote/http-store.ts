import { ConductorError, type ErrorCode } from '../../errors.js'
import type { ResultRecord } from '../../protocol/record.js'
import { nowMs } from '../clock.js'
import type { Body } from '../spool/stage.js'
import { type Address, hostOf, parseAddress } from './address.js'
import { type Answer, exchange, readAnswer } from './exchange.js'
import { makeForm } from './form.js'
import { type Limits, tierDeadlineMs } from './limits.js'
import type { DeliveryContext, RemoteStore } from './remote-store.js'
import { askForWait, withRetry } from './retry.js'

const ATTEMPTS = 6

/** Where results are posted. */
export interface HttpEndpoint {
  readonly endpoint: string
  readonly token: string | undefined
  /** Whether it came from a grant. */
  readonly granted: boolean
}

/** The bearer token as a header, or none. */
export function authorization(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` }
}

function codeOf(status: number): readonly [ErrorCode, boolean] {
  if (status === 401) return ['EXPIRED', false]
  if (status === 403) return ['ACCESS_DENIED', false]
  if (status === 404 || status === 405 || status === 410) return ['NOT_FOUND', false]
  if (status === 409 || status === 412) return ['EXISTS', false]
  if (status === 413) return ['TOO_LARGE', false]
  if (status === 408 || status === 425 || status === 429) return ['UNAVAILABLE', true]
  if (status === 507) return ['NO_SPACE', false]
  if (status === 501) return ['UNSUPPORTED', false]
  return status >= 500 ? ['UNAVAILABLE', true] : ['PROTOCOL', false]
}

/** Turns a refusal of the endpoint into a typed error that carries the start of what it said. */
export function httpError(answer: Answer, token: string | undefined): ConductorError {
  const damaged = answer.status === 422 && answer.text.includes('"digest_mismatch"')
  const [code, retryable] = damaged ? (['INTEGRITY', true] as const) : codeOf(answer.status)
  const said = answer.text.replace(/\s+/g, ' ').trim()
  const safe = token === undefined ? said : said.replaceAll(token, '…')
  const line = `HTTP ${answer.status}${safe === '' ? '' : `: ${safe.slice(0, 160)}`}`
  return askForWait(new ConductorError(code, line, { retryable }), answer.headers['retry-after'])
}

/** The HTTP tier: a multipart form with `key`, `task_id`, `metadata`, `sha256` and `file`; any 2xx means stored. */
export class HttpStore implements RemoteStore {
  readonly tier = 'http'
  readonly granted: boolean
  readonly #address: Address
  readonly #token: string | undefined
  readonly #limits: Limits

  constructor({ endpoint, token, granted }: HttpEndpoint, limits: Limits) {
    this.#address = parseAddress('results endpoint', endpoint)
    this.#token = token
    this.granted = granted
    this.#limits = limits
  }

  async store(record: ResultRecord, body: Body, context: DeliveryContext): Promise<string> {
    const { signal, onSent } = context
    const { secure, path } = this.#address
    const location = `${secure ? 'https' : 'http'}://${hostOf(this.#address)}${path.replace(/\?.*$/, '')}`
    context.foresee?.(location)
    const post = async (): Promise<void> => {
      const form = makeForm(
        {
          key: record.key,
          task_id: record.task_id,
          metadata: JSON.stringify(record.metadata),
          sha256: record.sha256,
          content_type: record.content_type,
          created_at: record.created_at,
          ...(record.archive === null ? {} : { archive: record.archive }),
        },
        {
          fileName: record.name,
          contentType: record.content_type,
          body: [{ path: body.path, start: 0, end: body.sizeBytes }],
        },
      )
      const answer = await exchange(
        {
          method: 'POST',
          address: this.#address,
          headers: { 'content-type': form.contentType, ...authorization(this.#token) },
          body: form.body,
          limits: this.#limits,
          signal,
          onSent,
        },
        readAnswer,
      )
      if (answer.status < 200 || answer.status > 299) throw httpError(answer, this.#token)
    }
    const deadlineAtMs = nowMs() + tierDeadlineMs(this.#limits, body.sizeBytes)
    await withRetry(post, { attempts: ATTEMPTS, deadlineAtMs, signal })
    return location
  }
}
