import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { assertKey, assertTaskId, compareKeys } from '../protocol/key.js'
import { MAX_SPOOL_RECORD_BYTES, parseRecord } from '../protocol/parse.js'
import type { ResultRecord } from '../protocol/record.js'
import { spoolFileName } from '../protocol/spool-layout.js'
import {
  describeRecord,
  type ListOptions,
  type OpenOptions,
  type ResultDescription,
  type ResultStore,
  type StoredEntry,
  type StoreTier,
} from './result-store.js'

/** A record's text and what it lies beside. */
export interface SpoolRecordFile {
  /** File name of the result, without the record's ending. */
  readonly fileName: string
  /** Undefined when the record is too large to read. */
  readonly text: string | undefined
}

/** How to get at the files of a spool, wherever it lies. Paths are relative to the spool; each has one folder and one file name. */
export interface SpoolFiles {
  /** Reads every record in a task's folder that has its bytes beside it, in any order; nothing when there is no such folder. */
  readRecords(taskId: string, options?: CallOptions): AsyncIterable<SpoolRecordFile>
  /** Resolves `undefined` when there is no such file, and for a record too large to read. */
  readRecord(taskId: string, fileName: string, options?: CallOptions): Promise<string | undefined>
  /** Rejects with `NOT_FOUND` before the first byte. */
  open(taskId: string, fileName: string, options?: OpenOptions): Promise<ReadableStream<Uint8Array>>
  /**
   * Removes a result's record, then its bytes, then its pending marker; resolves false when neither of the first two was there.
   * Rejects with a retryable `UNAVAILABLE` while a living process is delivering it: what it sends would appear later.
   */
  delete(taskId: string, fileName: string, options?: CallOptions): Promise<boolean>
}

/** Results in a spool: a directory here, a live sandbox's, or a volume's. A result counts once its record lies beside it. */
export class SpoolStore implements ResultStore {
  readonly name: string
  readonly tier: StoreTier
  readonly #files: SpoolFiles

  constructor(name: string, tier: StoreTier, files: SpoolFiles) {
    this.name = name
    this.tier = tier
    this.#files = files
  }

  async *list(
    taskId: string,
    { signal, startAfter = '' }: ListOptions = {},
  ): AsyncGenerator<StoredEntry, void, undefined> {
    for (const record of await this.records(taskId, { signal })) {
      if (compareKeys(record.key, startAfter) <= 0) continue
      yield { key: record.key, size: record.size, description: describeRecord(record) }
    }
  }

  /** Every whole record of a task, in key order; records that are malformed or lie under another's name are passed over. */
  async records(taskId: string, { signal }: CallOptions = {}): Promise<ResultRecord[]> {
    assertTaskId(taskId)
    signal?.throwIfAborted()
    const found: ResultRecord[] = []
    let sizeBytes = 0
    for await (const file of this.#files.readRecords(taskId, { signal })) {
      signal?.throwIfAborted()
      sizeBytes += file.text?.length ?? 0
      if (sizeBytes > MAX_SPOOL_RECORD_BYTES) throw tooManyRecords(`list ${this.name} for ${taskId}`)
      const record = file.text === undefined ? undefined : readOwnRecord(taskId, file.fileName, file.text)
      if (record !== undefined) found.push(record)
    }
    return found.sort((a, b) => compareKeys(a.key, b.key))
  }

  async describe(key: string, { signal }: CallOptions = {}): Promise<ResultDescription | undefined> {
    const { taskId, timestamp, name } = assertKey(key)
    signal?.throwIfAborted()
    const fileName = spoolFileName(timestamp, name)
    const text = await this.#files.readRecord(taskId, fileName, { signal })
    if (text === undefined) return undefined
    const record = readOwnRecord(taskId, fileName, text)
    if (record === undefined || record.key !== key) {
      throw new ConductorError('PROTOCOL', `the record of ${key} in ${this.name} is malformed`)
    }
    return describeRecord(record)
  }

  async open(key: string, options: OpenOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const { taskId, timestamp, name } = assertKey(key)
    options.signal?.throwIfAborted()
    return this.#files.open(taskId, spoolFileName(timestamp, name), options)
  }

  async delete(key: string, options: CallOptions = {}): Promise<boolean> {
    const { taskId, timestamp, name } = assertKey(key)
    options.signal?.throwIfAborted()
    return this.#files.delete(taskId, spoolFileName(timestamp, name), options)
  }
}

/** A record, provided that it speaks of the file it lies beside: a worker may write anything anywhere in its spool. */
export function readOwnRecord(taskId: string, fileName: string, text: string): ResultRecord | undefined {
  try {
    const record = parseRecord(text)
    const own = record.task_id === taskId && spoolFileName(record.timestamp, record.name) === fileName
    return own ? record : undefined
  } catch (error) {
    if (isConductorError(error)) return undefined
    throw error
  }
}

/** What a listing says of a spool with more records than fit into memory; honest ones would be hundreds of thousands. */
export function tooManyRecords(doing: string): ConductorError {
  return new ConductorError('TOO_LARGE', `${doing}: its records have over ${MAX_SPOOL_RECORD_BYTES} bytes`)
}

/** What deleting says while somebody is at work on the result. */
export function beingDelivered(doing: string): ConductorError {
  return new ConductorError('UNAVAILABLE', `${doing} failed: it is being delivered at this moment`, {
    retryable: true,
  })
}
