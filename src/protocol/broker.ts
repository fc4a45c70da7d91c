/**
 * The broker: a worker that holds no credentials asks its conductor for one signed request at a time.
 *
 * **The way there and back.** Without {@link GrantBroker.url} requests are files in the {@link brokerFolder} of the worker:
 *
 * 1. The client writes `{id}.request` (JSON, one of {@link BrokerRequest}) to a name that starts with a dot, and renames it.
 * 2. The conductor, which watches the folder, reads it and writes `{id}.answer`. That write is not atomic: the answer is whole
 *    once its last line is `end {id}`, and whoever sees less reads again.
 * 3. The client deletes both files. One that gives up deletes its request; answers of others that are older than
 *    {@link BROKER_LIMITS}`.staleMs` may be deleted by anyone in the sandbox. The conductor deletes nothing.
 *
 * A client that has no answer after `repeatMs` writes the same request under the same name again (the conductor answers one
 * id once at a time, and answering twice is harmless), and gives up after `patienceMs`, for `create` and `complete` after
 * `slowPatienceMs`: then nobody is there, which is `UNAVAILABLE`. With a `url` the same JSON is POSTed there with
 * `Authorization: Bearer {token}`; status 200 carries the same answer, any other is a failure of the transport.
 *
 * **Answers are lines**, so that a shell can read them: UTF-8 without control characters, fields separated by one space, the
 * last field to the end of the line. A reader skips lines whose first word it does not know.
 *
 * ```
 * stu-broker 1 {id}
 * error {CODE} {retry|final} {message}     refused; an error code of this project; nothing else follows but `end`
 * stored {location}                        the result is there already, or is now: nothing is left to be done
 * upload {upload id}                       of `create`; no spaces in it
 * expires {ISO time}                       when the requests below stop working
 * request {label} {METHOD} {URL}           to be sent as it is; the label is the part's number, or `-`
 * header {name} {value}                    of the request above; names in lower case; sent exactly as given, none left out
 * end {id}
 * ```
 *
 * `content-length` is among the headers, and is signed: a body of any other length is refused. Besides `host` a client adds
 * no header of its own that starts with `x-amz-`. Headers that it may add: `expect`, `connection`, `user-agent`, `accept`.
 *
 * **A result in one request.** `put` is answered with a `PUT`. Status 200: stored. 412 or 409: the name is taken or another
 * attempt is at it; ask again with `check`, which is answered by `stored` when this very result is there, by
 * `error EXISTS` when another one is (move on to the next key), else by a fresh request. The same after an attempt whose
 * outcome is unknown. 403 when `expires` is past: ask again. Metadata too big for S3's headers is written by the conductor
 * itself, before it answers.
 *
 * **A result in parts**, for bodies above {@link GrantBroker.put_bytes} and wherever it pays. `create` is answered with
 * `upload` (or `stored`, or `error EXISTS`). `parts` is answered with one `PUT` per part asked for; parts are `part_bytes`
 * long, the last one shorter, numbered from 1. `complete` is answered with `stored`; `error INTEGRITY retry` names parts that
 * are missing or have the wrong length in the line `missing {number} {number} …`. Every step can be repeated, by another process as well; an upload that
 * the store has forgotten is `error NOT_FOUND`: begin anew with `create`, which says `stored` if it was completed.
 */
import type { ErrorCode } from '../errors.js'
import type { ResultRecord } from './record.js'
import { workerFolder } from './spool-layout.js'

/** Numbers that both sides keep to; times in milliseconds. */
export const BROKER_LIMITS = {
  /** Of one request; a record is the biggest thing in one. */
  requestBytes: (4 << 20) + (64 << 10),
  /** Of one answer. */
  answerBytes: 1 << 20,
  /** Parts asked for at once. */
  partsAtOnce: 64,
  /** The least that S3 takes for any part but the last: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
  minPartBytes: 5 << 20,
  maxPartBytes: 5 * 1024 ** 3,
  maxParts: 10_000,
  /** Without an answer a request is written again after this long, */
  repeatMs: 2_000,
  /** given up after this long, */
  patienceMs: 15_000,
  /** or this long when the store itself has work to do with it. */
  slowPatienceMs: 180_000,
  /** Answers nobody fetched. */
  staleMs: 3_600_000,
} as const

/** Endings of the files in a broker's folder. */
export const BROKER_FILES = { request: '.request', answer: '.answer' } as const

const FOLDER = 'broker'
const idPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/
const FIRST_WORD = 'stu-broker'
const VERSION = '1'

interface RequestOf<Op extends string> {
  readonly v: 1
  /** Letters, digits, `_` and `-`, at most 64, the first a letter or digit; new for each request of a worker. */
  readonly id: string
  readonly op: Op
}

/** Asks for one `PUT` that stores a result whole. */
export interface BrokerPut extends RequestOf<'put'> {
  readonly record: ResultRecord
  /** Whether the conductor is to look first whether it is there. @default false */
  readonly check?: boolean | undefined
}

/** Begins an upload in parts. */
export interface BrokerCreate extends RequestOf<'create'> {
  readonly record: ResultRecord
}

/** Asks for the `PUT` of some parts of an upload. */
export interface BrokerParts extends RequestOf<'parts'> {
  readonly key: string
  readonly upload_id: string
  /** Of the whole result. */
  readonly size: number
  /** Of every part but the last. */
  readonly part_bytes: number
  readonly parts: readonly { readonly number: number; readonly sha256: string }[]
}

/** Ends an upload whose parts are all there. */
export interface BrokerComplete extends RequestOf<'complete'> {
  readonly record: ResultRecord
  readonly upload_id: string
  readonly part_bytes: number
}

/** Gives an upload up; what the store kept of it is freed. */
export interface BrokerAbort extends RequestOf<'abort'> {
  readonly key: string
  readonly upload_id: string
}

/** Asks for a `GET` of a result of the worker's own task; whether it is there, only sending it tells. */
export interface BrokerGet extends RequestOf<'get'> {
  readonly key: string
}

/** What a worker may ask of its conductor. */
export type BrokerRequest = BrokerPut | BrokerCreate | BrokerParts | BrokerComplete | BrokerAbort | BrokerGet

/** A request that the conductor signed, to be sent as it is. */
export interface SignedRequest {
  /** The part's number, or undefined. */
  readonly part?: number | undefined
  readonly method: string
  readonly url: string
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
}

/** Why a request was refused. */
export interface BrokerRefusal {
  readonly code: ErrorCode
  readonly retryable: boolean
  readonly message: string
  /** Parts that `complete` did not find as they should be. */
  readonly missing: readonly number[]
}

/** What a conductor answers. */
export interface BrokerAnswer {
  readonly id: string
  readonly error?: BrokerRefusal | undefined
  /** Where the result lies; set when nothing is left to be done. */
  readonly stored?: string | undefined
  readonly uploadId?: string | undefined
  /** ISO 8601, UTC. */
  readonly expiresAt?: string | undefined
  readonly requests: readonly SignedRequest[]
}

/** Where a worker's requests and their answers lie. */
export function brokerFolder(localDir: string, taskId: string): string {
  return `${workerFolder(localDir, taskId)}/${FOLDER}`
}

/** Whether something can be a request's id. */
export function isBrokerId(id: string): boolean {
  return idPattern.test(id)
}

/** The id of the request in a file, by the file's name; `undefined` for any other file. */
export function brokerRequestId(fileName: string): string | undefined {
  if (!fileName.endsWith(BROKER_FILES.request)) return undefined
  const id = fileName.slice(0, -BROKER_FILES.request.length)
  return isBrokerId(id) ? id : undefined
}

/** An answer as its lines; what would break a line becomes a space. */
export function formatBrokerAnswer(answer: BrokerAnswer): string {
  const { id, error, stored, uploadId, expiresAt, requests } = answer
  const lines = [`${FIRST_WORD} ${VERSION} ${id}`]
  if (error !== undefined) {
    lines.push(`error ${error.code} ${error.retryable ? 'retry' : 'final'} ${error.message}`)
    if (error.missing.length > 0) lines.push(`missing ${error.missing.join(' ')}`)
  }
  if (stored !== undefined) lines.push(`stored ${stored}`)
  if (uploadId !== undefined) lines.push(`upload ${uploadId}`)
  if (expiresAt !== undefined) lines.push(`expires ${expiresAt}`)
  for (const { part, method, url, headers } of requests) {
    lines.push(`request ${part ?? '-'} ${method} ${url}`)
    for (const [name, value] of Object.entries(headers)) lines.push(`header ${name} ${value}`)
  }
  lines.push(`end ${id}`)
  return lines.map((line) => `${line.replace(/\p{Cc}/gu, ' ')}\n`).join('')
}

/** Reads the answer to a request; `undefined` while it is not whole, or when it is no answer to that request. */
export function parseBrokerAnswer(id: string, text: string): BrokerAnswer | undefined {
  if (!text.endsWith(`\nend ${id}\n`) || !text.startsWith(`${FIRST_WORD} ${VERSION} ${id}\n`))
    return undefined
  let error: BrokerRefusal | undefined
  let stored: string | undefined
  let uploadId: string | undefined
  let expiresAt: string | undefined
  const requests: { part?: number; method: string; url: string; headers: Record<string, string> }[] = []
  for (const line of text.split('\n')) {
    const [word = '', first = '', second = ''] = line.split(' ', 3)
    const afterWord = line.slice(word.length + 1)
    const afterFirst = afterWord.slice(first.length + 1)
    const afterSecond = afterFirst.slice(second.length + 1)
    if (word === 'error') {
      error = { code: first as ErrorCode, retryable: second === 'retry', message: afterSecond, missing: [] }
    } else if (word === 'missing' && error !== undefined) {
      error = { ...error, missing: afterWord.split(' ').map(Number) }
    } else if (word === 'stored') stored = afterWord
    else if (word === 'upload') uploadId = afterWord
    else if (word === 'expires') expiresAt = afterWord
    else if (word === 'request') {
      const part = first === '-' ? {} : { part: Number(first) }
      requests.push({ ...part, method: second, url: afterSecond, headers: {} })
    } else if (word === 'header') {
      const last = requests.at(-1)
      if (last !== undefined) last.headers[first] = afterFirst
    }
  }
  return { id, error, stored, uploadId, expiresAt, requests }
}
