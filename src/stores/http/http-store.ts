import type { Readable } from 'node:stream'
import { z } from 'zod'
import type { CallOptions } from '../../call-options.js'
import { checkOptions } from '../../check-options.js'
import { ConductorError } from '../../errors.js'
import { assertKey, assertTaskId, compareKeys, parseTimestamp } from '../../protocol/key.js'
import { MAX_RECORD_BYTES } from '../../protocol/parse.js'
import type { ResultRecord } from '../../protocol/record.js'
import { skipBytes } from '../../streams/skip-bytes.js'
import {
  describeRecord,
  type ListOptions,
  type OpenOptions,
  type ResultDescription,
  type ResultStore,
  type StoredEntry,
} from '../result-store.js'
import { EndpointAddress } from './endpoint-address.js'
import {
  errorCode,
  type HttpAnswer,
  type HttpCall,
  readRefusal,
  readText,
  refusalOf,
  send,
} from './http-client.js'
import { mapHttpRefusal } from './map-http-error.js'
import { parsePage, parseWireRecord } from './parse-page.js'
import { upload } from './upload.js'

/** What a token is wanted for. */
export type TokenUse = 'read' | 'write' | 'delete'

/** Where a results endpoint is, and who asks. */
export interface HttpStoreOptions {
  /** What workers have as `WORKER_RESULTS_ENDPOINT`. */
  readonly endpoint: string
  /** A bearer token, or what makes one for a task, or for `'*'`, all of them. */
  readonly token?: string | ((taskId: string, use: TokenUse) => string) | undefined
  /** Longest time without a byte from the endpoint, in milliseconds. @default 60000 */
  readonly stallTimeoutMs?: number | undefined
}

/** @internal */
export const httpStoreOptionsSchema = z.strictObject({
  endpoint: z.string(),
  token: z
    .union([
      z.string().min(1),
      z.custom<(taskId: string, use: TokenUse) => string>((value) => typeof value === 'function'),
    ])
    .optional(),
  stallTimeoutMs: z
    .number()
    .int()
    .positive()
    .max(2 ** 31 - 1)
    .optional(),
})

/** Largest page that is read; endpoints of this project end pages far below it. */
const MAX_PAGE_BYTES = 32 << 20
/** Pages in a row without any result, after which an endpoint is only playing for time. */
const MAX_EMPTY_PAGES = 100

/** Results behind an HTTP endpoint. Everything that it answers is checked: it is not necessarily one of ours. */
export class HttpStore implements ResultStore {
  readonly tier = 'http'
  readonly name: string
  readonly #address: EndpointAddress
  readonly #token: HttpStoreOptions['token']
  readonly #stallTimeoutMs: number

  /** Throws `INVALID_OPTION` for anything but an http or https URL. Nothing is sent yet. */
  constructor(options: HttpStoreOptions) {
    checkOptions('HttpStore', httpStoreOptionsSchema, options)
    this.#address = new EndpointAddress(options.endpoint)
    this.#token = options.token
    this.#stallTimeoutMs = options.stallTimeoutMs ?? 60_000
    this.name = this.#address.shown
  }

  async *list(
    taskId: string,
    { signal, startAfter }: ListOptions = {},
  ): AsyncGenerator<StoredEntry, void, undefined> {
    assertTaskId(taskId)
    const doing = `list ${this.name} for ${taskId}`
    const seen = new Set<string>()
    let cursor: string | undefined
    let last = startAfter ?? ''
    let emptyPages = 0
    for (;;) {
      const url = this.#address.list(taskId, cursor, startAfter)
      const call = { ...this.#call(taskId, doing, signal), url }
      const { records, next } = await this.#readPage(call, cursor !== undefined)
      let yielded = 0
      for (const record of records) {
        // Endpoints that do not know `start_after` begin at the front.
        if (cursor === undefined && startAfter !== undefined && compareKeys(record.key, startAfter) <= 0)
          continue
        if (record.task_id !== taskId) continue
        // Merging relies on the order; an endpoint that breaks it must not make results disappear or repeat.
        if (compareKeys(last, record.key) >= 0) {
          throw new ConductorError('PROTOCOL', `${doing} is not in key order`)
        }
        last = record.key
        yielded++
        yield { key: record.key, size: record.size, description: describeRecord(record) }
      }
      if (next === undefined) return
      emptyPages = yielded === 0 ? emptyPages + 1 : 0
      if (seen.has(next) || emptyPages > MAX_EMPTY_PAGES) {
        throw new ConductorError('PROTOCOL', `${doing} does not advance`)
      }
      seen.add(next)
      cursor = next
    }
  }

  async describe(key: string, { signal }: CallOptions = {}): Promise<ResultDescription | undefined> {
    const { taskId } = assertKey(key)
    const doing = `describe ${this.name}/${key}`
    const call = this.#call(taskId, doing, signal)
    const answer = await send({ ...call, url: this.#address.record(key) })
    if (answer.status === 200) {
      const record = parseWireRecord(await readText(answer, MAX_RECORD_BYTES, doing))
      if (record?.key === key) return describeRecord(record)
      throw new ConductorError('PROTOCOL', `${doing} answered with something that is not its record`)
    }
    const refusal = await refusalOf(answer, doing)
    // Endpoints of others may know results without having a place for their records.
    if (refusal.code === 'NOT_FOUND' || refusal.code === 'UNSUPPORTED') return this.#describeByHead(key, call)
    throw refusal
  }

  async open(key: string, { signal, offset = 0 }: OpenOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const { taskId } = assertKey(key)
    const doing = `get ${this.name}/${key}`
    const headers = offset === 0 ? undefined : { range: `bytes=${offset}-` }
    const answer = await send({
      ...this.#call(taskId, doing, signal),
      url: this.#address.result(key),
      headers,
    })
    // Endpoints need not know ranges; what was read already is then read again.
    if (answer.status === 200) return skipBytes(answer.body, offset)
    if (answer.status === 206 && offset > 0) {
      const start = /^bytes (\d{1,16})-/.exec(answer.headers.get('content-range') ?? '')?.[1]
      if (start !== undefined && Number(start) === offset) return answer.body
    } else if (answer.status === 416 && answer.headers.get('content-range') === `bytes */${offset}`) {
      // Nothing is left after what was read already.
      await answer.body.cancel()
      return new ReadableStream({ start: (controller) => controller.close() })
    }
    if (answer.status >= 200 && answer.status < 300) {
      await answer.body.cancel()
      throw new ConductorError('PROTOCOL', `${doing} answered with another part than was asked for`)
    }
    throw await refusalOf(answer, doing)
  }

  /**
   * Stores a result that the conductor carries itself; any 2xx means stored. Rejects with `EXISTS` where the key is another
   * result's. Resolves with where it lies.
   */
  async put(record: ResultRecord, body: Readable, { signal }: CallOptions = {}): Promise<string> {
    const { taskId } = assertKey(record.key)
    const doing = `post ${record.key} to ${this.name}`
    const { token, stallTimeoutMs } = this.#call(taskId, doing, signal, 'write')
    const url = this.#address.post()
    const { status, text } = await upload({ url, token, record, body, stallTimeoutMs, signal, doing })
    if (status < 200 || status > 299) throw mapHttpRefusal({ status, code: errorCode(text) }, doing)
    return this.name
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<boolean> {
    const { taskId } = assertKey(key)
    const doing = `delete ${this.name}/${key}`
    const call = this.#call(taskId, doing, signal, 'delete')
    const answer = await send({ ...call, url: this.#address.result(key), method: 'DELETE' })
    if (answer.status >= 200 && answer.status < 300) {
      await answer.body.cancel()
      return true
    }
    const refusal = await readRefusal(answer, doing)
    if (refusal.status !== 404 && refusal.status !== 410) throw mapHttpRefusal(refusal, doing)
    // A server that knows no DELETE may say so with 404; one that says in our words what is missing, or can list, is believed.
    if (refusal.code !== 'not_found') await this.#assertLists(taskId, signal)
    return false
  }

  /** Rejects with `UNSUPPORTED` for an endpoint that only takes the POST. */
  async #assertLists(taskId: string, signal: AbortSignal | undefined): Promise<void> {
    const call = this.#call(taskId, `list ${this.name} for ${taskId}`, signal)
    await this.#readPage({ ...call, url: this.#address.list(taskId, undefined, undefined) }, false)
  }

  #call(
    taskId: string,
    doing: string,
    signal: AbortSignal | undefined,
    use: TokenUse = 'read',
  ): Omit<HttpCall, 'url'> {
    const token = typeof this.#token === 'function' ? this.#token(taskId, use) : this.#token
    return { token, stallTimeoutMs: this.#stallTimeoutMs, signal, doing }
  }

  /** @param goesOn whether a page before it was answered as one */
  async #readPage(call: HttpCall, goesOn: boolean): Promise<ReturnType<typeof parsePage>> {
    const headers = { accept: 'application/json' }
    const answer = await send({ ...call, headers })
    const isJson = /^application\/json\s*(;|$)/i.test(answer.headers.get('content-type') ?? '')
    const cannotList = [404, 405, 410, 501].includes(answer.status)
    if (cannotList || (answer.status >= 200 && answer.status < 300 && !isJson)) {
      await answer.body.cancel()
      const what = cannotList ? `HTTP ${answer.status}` : 'something that is not JSON'
      if (goesOn) throw new ConductorError('PROTOCOL', `${call.doing} broke off: the next page is ${what}`)
      throw new ConductorError(
        'UNSUPPORTED',
        `${this.name} cannot list results: it answers GET with ${what}. It may well take results by POST`,
      )
    }
    if (answer.status !== 200) throw await refusalOf(answer, call.doing)
    return parsePage(await readText(answer, MAX_PAGE_BYTES, call.doing), call.doing)
  }

  async #describeByHead(key: string, call: Omit<HttpCall, 'url'>): Promise<ResultDescription | undefined> {
    const answer = await send({ ...call, url: this.#address.result(key), method: 'HEAD' })
    if (answer.status === 200) {
      await answer.body.cancel()
      return describeHead(key, answer, call.doing)
    }
    const refusal = await refusalOf(answer, call.doing)
    if (refusal.code === 'NOT_FOUND') return undefined
    throw refusal
  }
}

/** What the headers tell: size and type, and the digest where the ETag is one. */
function describeHead(key: string, { headers }: HttpAnswer, doing: string): ResultDescription {
  const length = headers.get('content-length')
  if (length === null || !/^\d{1,15}$/.test(length)) {
    throw new ConductorError('PROTOCOL', `${doing} does not tell the size`)
  }
  const { timestamp } = assertKey(key)
  return {
    key,
    size: Number(length),
    sha256: /^"([0-9a-f]{64})"$/.exec(headers.get('etag') ?? '')?.[1],
    contentType: (headers.get('content-type') ?? 'application/octet-stream').slice(0, 255),
    metadata: {},
    createdAt: parseTimestamp(timestamp) ?? new Date(0),
    archive: null,
    problem: 'the endpoint has no record of it',
  }
}
