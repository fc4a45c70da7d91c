import type { CallOptions } from '../call-options.js'
import type { StoreTier } from './result-store.js'

/** What a place knows of a task without asking further. */
export interface TaskEntry {
  readonly taskId: string
  /** Whether a manifest of it lies there. */
  readonly sealed: boolean
  /** When its manifest was written last, or else its newest result; undefined where that takes {@link TaskIndex.measure}. */
  readonly updatedAt: Date | undefined
  readonly usage?: Pick<TaskUsage, 'resultCount' | 'sizeBytes'> | undefined
}

/** What a task has stored in one place. */
export interface TaskUsage {
  /** When the newest was stored, by the store's clock. */
  readonly updatedAt: Date
  readonly resultCount: number
  /** Bytes. */
  readonly sizeBytes: number
}

/** Options for a listing of tasks. */
export interface ListTasksOptions extends CallOptions {
  /** Only tasks whose id starts so. */
  readonly startsWith?: string | undefined
}

/** A place that knows which tasks have stored something in it. */
export interface TaskIndex {
  readonly name: string
  readonly tier: StoreTier
  /** In any order; a task may come twice. Rejects with `UNSUPPORTED` where a place knows only of tasks that it is asked about. */
  listTasks(options?: ListTasksOptions): AsyncIterable<TaskEntry>
  /** What a task has there; undefined when nothing. */
  measure(taskId: string, options?: CallOptions): Promise<TaskUsage | undefined>
  /** Deletes all that lies in a task's place, results or not, and tells of each; missing where results go one by one. */
  clear?(taskId: string, options: ClearOptions): AsyncIterable<ClearedObject>
}

/** Options for emptying a task's place. */
export interface ClearOptions extends CallOptions {
  /** What was stored at or after this moment stays, by the store's clock. */
  readonly storedBefore: Date
}

/** Something that is gone. */
export interface ClearedObject {
  /** Undefined for what was no result. */
  readonly key: string | undefined
  /** Bytes. */
  readonly size: number
}
