import type { CallOptions } from '../../call-options.js'
import type { ResultRecord } from '../../protocol/record.js'
import type { StagedBody, StagingFolder } from './staging-folder.js'

/** What became of a result that was handed over. */
export interface Commit {
  /** `unchanged`: the key already holds these bytes. `conflict`: it holds others, and keeps them. */
  readonly outcome: 'created' | 'unchanged' | 'conflict'
  /** What lies under the key now. */
  readonly record: ResultRecord
}

/** One page of a task's results. */
export interface RecordPage {
  /** In key order. */
  readonly records: readonly ResultRecord[]
  /** Key of the last one looked at, where the next page goes on; undefined when there is none. */
  readonly next: string | undefined
}

/** Which page of a list is wanted. */
export interface PageOptions extends CallOptions {
  /** Only keys that sort after this one. */
  readonly after: string
  readonly limit: number
  /** A page ends early when its records exceed this, in bytes of JSON; it holds at least one. */
  readonly maxBytes: number
}

/** A part of a body. */
export interface BodyRange extends CallOptions {
  /** First byte. */
  readonly start: number
  /** First byte that is not wanted any more. */
  readonly end: number
}

/** What a task keeps. */
export interface TaskUsage {
  readonly count: number
  readonly sizeBytes: number
}

/** A task that keeps something. */
export interface KeptTask extends TaskUsage {
  readonly taskId: string
  /** When its newest result was stored, by the storage's clock. */
  readonly updatedAt: Date
}

/** One page of the tasks that keep something. */
export interface TaskPage {
  /** In an order of the storage’s own, the same for every page. */
  readonly tasks: readonly KeptTask[]
  /** Id of the last one looked at, where the next page goes on; undefined when there is none. */
  readonly next: string | undefined
}

/** Which page of the tasks is wanted. */
export interface TaskPageOptions extends CallOptions {
  /** Only those that come after this one. */
  readonly after: string
  /** Tasks to look at; those that keep nothing count as well, except before the first that keeps something. */
  readonly limit: number
}

/** Takes an upload on to where it is to lie while it still arrives. Nothing shows there before it is committed. */
export interface Relay {
  /** Told how much of the staged file can be read by now; resolves when more may come. */
  advance(path: string, writtenBytes: number): Promise<void>
  /** Clears away what was not committed; must be called in the end, whatever happened. Never rejects. */
  abandon(): Promise<void>
}

/** Where a results endpoint keeps what it takes. Keys and records given to it are valid; what it reads back need not be. */
export interface EndpointBackend {
  /** Takes uploads while their key and digest are still unknown. */
  readonly staging: StagingFolder
  /** Largest body that it can keep, in bytes. */
  readonly maxFileBytes: number
  /** Begins to take on an upload whose record is known up to its size; undefined where that is not worth it. */
  relay?(record: ResultRecord): Relay | undefined
  /** Makes a staged body the result of its record's key. Once this resolves with `created` or `unchanged`, it is kept whatever happens. */
  commit(body: StagedBody, record: ResultRecord, relay?: Relay): Promise<Commit>
  /** Lists a task's results; what is none is passed over. */
  list(taskId: string, options: PageOptions): Promise<RecordPage>
  /** Resolves `undefined` when there is no such result. */
  read(key: string, options?: CallOptions): Promise<ResultRecord | undefined>
  /** Rejects with `NOT_FOUND` before the first byte; cancelling the stream frees what it holds. */
  open(key: string, range: BodyRange): Promise<ReadableStream<Uint8Array>>
  /** Resolves false when there was no such result. */
  delete(key: string): Promise<boolean>
  /** Lists the tasks there are. */
  listTasks(options: TaskPageOptions): Promise<TaskPage>
  /** Counts what a task keeps. */
  usage(taskId: string, options?: CallOptions): Promise<TaskUsage>
  /** Frees what it holds; unfinished uploads are gone, results stay. */
  close(): Promise<void>
}
