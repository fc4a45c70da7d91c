import { createReadStream } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import { KeyLock } from '../../key-lock.js'
import { parseKey, taskIdProblem } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import { toS3Metadata } from '../../protocol/s3-layout.js'
import { admitListeners } from '../../signals.js'
import type { ResultDescription, StoredEntry } from '../../stores/result-store.js'
import { listPages } from '../../stores/s3/list-pages.js'
import type { S3Location } from '../../stores/s3/s3-location.js'
import { S3Store } from '../../stores/s3/s3-store.js'
import { S3Tasks } from '../../stores/s3/s3-tasks.js'
import { takeBytes } from '../take-bytes.js'
import { collectPage } from './collect-page.js'
import type {
  BodyRange,
  Commit,
  EndpointBackend,
  PageOptions,
  RecordPage,
  Relay,
  TaskPage,
  TaskPageOptions,
  TaskUsage,
} from './endpoint-backend.js'
import { S3Relay } from './s3-relay.js'
import { type StagedBody, StagingFolder } from './staging-folder.js'

const PUT_ATTEMPTS = 3
/** Parts of relayed uploads under way at once, over all of them; each is held in memory. */
const CONCURRENT_PARTS = 8
/** Tasks of a page counted at once. */
const CONCURRENT_COUNTS = 16
/** S3 answers a page's worth of HEADs well within the patience of a client. */
const MAX_PAGE = 250

/** Options for {@link S3Backend.open}. */
export interface S3BackendOptions {
  /** Where uploads lie until S3 has them. @default a folder of this user's in the system's temporary one */
  readonly stagingFolder?: string | undefined
  /**
   * Uploads that are larger go on to S3 while they still arrive, so that no client waits long in silence for its answer; those
   * whose form names `key`, `task_id` and `sha256` before the file, as `persist-result` does. In bytes. @default 64 MiB
   */
  readonly relayFromBytes?: number | undefined
}

/** Keeps results in S3, laid out as workers lay them out there themselves. */
export class S3Backend implements EndpointBackend {
  readonly staging: StagingFolder
  /** What S3 takes in one request: https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html */
  readonly maxFileBytes = 5 * 1024 ** 3
  readonly #at: S3Location
  readonly #store: S3Store
  readonly #lock = new KeyLock()
  readonly #relayFromBytes: number
  readonly #relayedParts = pLimit(CONCURRENT_PARTS)

  private constructor(location: S3Location, staging: StagingFolder, relayFromBytes: number) {
    this.#at = location
    this.#store = new S3Store(location)
    this.staging = staging
    this.#relayFromBytes = relayFromBytes
  }

  /** The location stays the caller's to close. Removes what crashed processes left in the staging folder. */
  static async open(location: S3Location, options: S3BackendOptions = {}): Promise<S3Backend> {
    const user = process.getuid?.() ?? 'user'
    const folder = options.stagingFolder ?? join(tmpdir(), `stu-conductor-endpoint-${user}`)
    const staging = await StagingFolder.open(folder, { durable: false })
    return new S3Backend(location, staging, options.relayFromBytes ?? 64 << 20)
  }

  relay(record: ResultRecord): Relay | undefined {
    // Large metadata lies beside the object and is put there just before it.
    if (toS3Metadata(record).sidecar) return undefined
    const options = { at: this.#at, limit: this.#relayedParts, fromBytes: this.#relayFromBytes }
    return new S3Relay(record, options)
  }

  async commit(body: StagedBody, record: ResultRecord, relay?: Relay): Promise<Commit> {
    return this.#lock.run(record.key, async () => {
      // Asked first, since some stores ignore `If-None-Match`, and since the record of large metadata goes ahead of the object.
      const earlier = await this.#kept(record.key)
      if (earlier !== undefined) return { outcome: compare(earlier, record), record: earlier }
      try {
        if (!(await this.#finishRelay(body, record, relay))) await this.#put(body, record)
        return { outcome: 'created', record }
      } catch (error) {
        if (!isConductorError(error) || error.code !== 'EXISTS') throw error
        const there = await this.#kept(record.key)
        if (there === undefined) throw error
        return { outcome: compare(there, record), record: there }
      }
    })
  }

  async list(taskId: string, { after, limit, maxBytes, signal }: PageOptions): Promise<RecordPage> {
    const wanted = Math.min(limit, MAX_PAGE)
    const entries: StoredEntry[] = []
    let complete = true
    for await (const entry of this.#store.list(taskId, { startAfter: after, signal })) {
      if (entries.length === wanted) {
        complete = false
        break
      }
      entries.push(entry)
    }
    // Each record of a page is asked for with it.
    if (signal !== undefined) admitListeners(signal)
    const bounds = { complete, limit: wanted, maxBytes, signal }
    return collectPage(entries, bounds, ({ key }) => this.read(key, { signal }))
  }

  async read(key: string, options: CallOptions = {}): Promise<ResultRecord | undefined> {
    const description = await this.#store.describe(key, options)
    return description === undefined ? undefined : this.#toRecord(description)
  }

  async open(key: string, { start, end, signal }: BodyRange): Promise<ReadableStream<Uint8Array>> {
    return takeBytes(await this.#store.open(key, { offset: start, signal }), end - start)
  }

  async delete(key: string): Promise<boolean> {
    return this.#lock.run(key, async () => {
      // What another process is about to put under the key may have its sidecar there by now.
      if ((await this.#store.describe(key)) === undefined) return false
      return this.#store.delete(key, { listed: true })
    })
  }

  async listTasks({ after, limit, signal }: TaskPageOptions): Promise<TaskPage> {
    const { taskIds, complete } = await this.#taskIdsAfter(after, limit, signal)
    const index = new S3Tasks(this.#at)
    const counts = pLimit(CONCURRENT_COUNTS)
    const usages = await counts.map(taskIds, (taskId) => index.measure(taskId, { signal }))
    const tasks = taskIds.flatMap((taskId, i) => {
      const usage = usages[i]
      if (usage === undefined) return []
      const { updatedAt, resultCount: count, sizeBytes } = usage
      return [{ taskId, updatedAt, count, sizeBytes }]
    })
    return { tasks, next: complete ? undefined : taskIds.at(-1) }
  }

  async usage(taskId: string, { signal }: CallOptions = {}): Promise<TaskUsage> {
    let count = 0
    let sizeBytes = 0
    for await (const { size } of this.#store.list(taskId, { signal })) {
      count++
      sizeBytes += size
    }
    return { count, sizeBytes }
  }

  async close(): Promise<void> {
    await this.staging.close()
  }

  async #taskIdsAfter(
    after: string,
    limit: number,
    signal: AbortSignal | undefined,
  ): Promise<{ taskIds: string[]; complete: boolean }> {
    const Prefix = this.#at.prefix === '' ? '' : `${this.#at.prefix}/`
    // All keys of the task before are passed over: '0' comes right after '/'.
    const StartAfter = after === '' ? undefined : `${Prefix}${after}0`
    const wanted = { Prefix, Delimiter: '/', StartAfter }
    const taskIds: string[] = []
    const doing = `list the tasks of ${this.#store.name}`
    for await (const { CommonPrefixes = [] } of listPages(this.#at, wanted, doing, signal)) {
      for (const { Prefix: folder = '' } of CommonPrefixes) {
        const taskId = folder.slice(Prefix.length, -1)
        if (taskIdProblem(taskId) !== undefined) continue
        if (taskIds.length === limit) return { taskIds, complete: false }
        taskIds.push(taskId)
      }
    }
    return { taskIds, complete: true }
  }

  /** What lies under a key; rejects with `EXISTS` for an object of somebody else's making. */
  async #kept(key: string): Promise<ResultRecord | undefined> {
    const description = await this.#store.describe(key)
    if (description === undefined) return undefined
    const record = this.#toRecord(description)
    if (record === undefined)
      throw new ConductorError('EXISTS', `${key} in ${this.#store.name} has no digest`)
    return record
  }

  /** False when the body has yet to be put as a whole. */
  async #finishRelay(body: StagedBody, record: ResultRecord, relay: Relay | undefined): Promise<boolean> {
    if (!(relay instanceof S3Relay) || !relay.carries(record)) return false
    try {
      await relay.finish(body)
      return true
    } catch (error) {
      // The staged file is still whole, and what keeps the plain way from working as well is said by that.
      if (!isConductorError(error) || error.code === 'EXISTS') throw error
      return false
    }
  }

  async #put(body: StagedBody, record: ResultRecord): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        // The SDK cannot repeat a stream, so each attempt gets its own.
        await this.#store.put(record, createReadStream(body.path, { highWaterMark: 1 << 20 }))
        return
      } catch (error) {
        if (!isConductorError(error) || !error.retryable || attempt === PUT_ATTEMPTS) throw error
        await sleep(200 * 4 ** (attempt - 1))
      }
    }
  }

  /** An object without a digest was put there by something else and is no result that can be vouched for. */
  #toRecord(description: ResultDescription): ResultRecord | undefined {
    const { key, size, sha256, contentType, metadata, createdAt, archive } = description
    const parts = parseKey(key)
    if (parts === undefined || sha256 === undefined) return undefined
    const at = createdAt.toISOString()
    return {
      v: 1,
      task_id: parts.taskId,
      timestamp: parts.timestamp,
      name: parts.name,
      key,
      size,
      sha256,
      content_type: contentType,
      metadata,
      created_at: at,
      archive,
      stored: [{ tier: 's3', location: `${this.#store.name}/${key}`, at }],
      errors: {},
    }
  }
}

function compare(there: ResultRecord, record: ResultRecord): Commit['outcome'] {
  return there.sha256 === record.sha256 ? 'unchanged' : 'conflict'
}
