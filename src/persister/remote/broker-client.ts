import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { ConductorError } from '../../errors.js'
import { createText, removeFile } from '../../files/disk.js'
import { systemCode } from '../../files/system-code.js'
import {
  BROKER_FILES,
  BROKER_LIMITS,
  type BrokerAnswer,
  type BrokerRequest,
  brokerFolder,
  parseBrokerAnswer,
} from '../../protocol/broker.js'
import type { GrantBroker } from '../../protocol/grant.js'
import { nowMs } from '../clock.js'
import { parseAddress } from './address.js'
import { exchange, readAnswer } from './exchange.js'
import type { Limits } from './limits.js'

/** Looks at the answer this often at first, and less often the longer it takes. */
const FIRST_LOOK_MS = 2
const LONGEST_LOOK_MS = 100

type WithoutId<R> = R extends BrokerRequest ? Omit<R, 'v' | 'id'> : never

/** What is asked of a broker; version and id are added. */
export type BrokerWish = WithoutId<BrokerRequest>

/** An answer that is no refusal. */
export type Granted = Omit<BrokerAnswer, 'error'>

/** Asks the conductor for signed requests: through files that it watches, or over HTTPS where the grant says so. */
export class BrokerClient {
  readonly #broker: GrantBroker
  readonly #folder: string
  readonly #limits: Limits
  #swept = false

  constructor(broker: GrantBroker, localDir: string, taskId: string, limits: Limits) {
    this.#broker = broker
    this.#folder = brokerFolder(localDir, taskId)
    this.#limits = limits
  }

  /** Asks once. Rejects with the refusal's own code; `UNAVAILABLE` when nobody answers. */
  async ask(wish: BrokerWish, signal: AbortSignal | undefined): Promise<Granted> {
    const id = `${process.pid}-${randomBytes(8).toString('hex')}`
    const text = JSON.stringify({ v: 1, id, ...wish })
    const slow = wish.op === 'create' || wish.op === 'complete'
    const answer =
      this.#broker.url === undefined
        ? await this.#askByFile(id, text, slow, signal)
        : await this.#askByHttp(this.#broker.url, id, text, signal)
    const { error } = answer
    if (error !== undefined) throw new BrokerRefused(error)
    return answer
  }

  async #askByFile(
    id: string,
    text: string,
    slow: boolean,
    signal: AbortSignal | undefined,
  ): Promise<BrokerAnswer> {
    this.#sweep()
    const request = `${this.#folder}/${id}${BROKER_FILES.request}`
    const answer = `${this.#folder}/${id}${BROKER_FILES.answer}`
    const startedMs = nowMs()
    const patienceMs = slow ? BROKER_LIMITS.slowPatienceMs : BROKER_LIMITS.patienceMs
    try {
      let writtenMs = Number.NEGATIVE_INFINITY
      for (let waitMs = FIRST_LOOK_MS; ; waitMs = Math.min(waitMs * 1.3, LONGEST_LOOK_MS)) {
        signal?.throwIfAborted()
        if (nowMs() - writtenMs >= BROKER_LIMITS.repeatMs) {
          this.#write(request, text)
          writtenMs = nowMs()
        }
        await sleep(waitMs)
        const found = parseBrokerAnswer(id, readIfThere(answer))
        if (found !== undefined) return found
        if (nowMs() - startedMs > patienceMs) {
          const line = `no conductor answered within ${patienceMs / 1000} s`
          throw new ConductorError('UNAVAILABLE', line, { retryable: true })
        }
      }
    } finally {
      removeFile(request)
      removeFile(answer)
    }
  }

  /** Answers that came too late for whoever asked are secrets that nobody needs. */
  #sweep(): void {
    if (this.#swept) return
    this.#swept = true
    for (const name of readdirSync(this.#folder)) {
      if (!name.endsWith(BROKER_FILES.answer)) continue
      const path = `${this.#folder}/${name}`
      const { mtimeMs } = statSync(path, { throwIfNoEntry: false }) ?? { mtimeMs: Date.now() }
      if (Date.now() - mtimeMs > BROKER_LIMITS.staleMs) removeFile(path)
    }
  }

  /** Whoever watches the folder sees the request whole, or not at all. */
  #write(path: string, text: string): void {
    const temporary = `${this.#folder}/.tmp-${randomBytes(8).toString('hex')}`
    if (!createText(temporary, text)) throw new ConductorError('UNAVAILABLE', 'cannot leave a request')
    renameSync(temporary, path)
  }

  async #askByHttp(
    url: string,
    id: string,
    text: string,
    signal: AbortSignal | undefined,
  ): Promise<BrokerAnswer> {
    const { token } = this.#broker
    const answer = await exchange(
      {
        method: 'POST',
        address: parseAddress('broker', url),
        headers: {
          'content-type': 'application/json',
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        },
        body: [Buffer.from(text)],
        limits: this.#limits,
        signal,
      },
      readAnswer,
    )
    const found = answer.status === 200 ? parseBrokerAnswer(id, answer.text) : undefined
    if (found !== undefined) return found
    const line = `the broker answered ${answer.status}`
    if (answer.status === 401 || answer.status === 403) throw new ConductorError('ACCESS_DENIED', line)
    const retryable = answer.status === 429 || answer.status >= 500
    throw new ConductorError(retryable ? 'UNAVAILABLE' : 'PROTOCOL', line, { retryable })
  }
}

/** A broker's refusal. */
export class BrokerRefused extends ConductorError {
  /** Parts that were not found as they should be. */
  readonly missing: readonly number[]

  constructor({ code, message, retryable, missing }: NonNullable<BrokerAnswer['error']>) {
    super(code, message, { retryable })
    this.missing = missing
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return ''
    throw error
  }
}
