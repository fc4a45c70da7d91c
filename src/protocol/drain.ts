import type { ResultRecord } from './record.js'

/** What became of one declared output when a worker was drained. */
export interface OutputReport {
  /** As declared. */
  readonly path: string
  /** `unchanged` means that the same bytes were stored under the same name before; `key` is that result's. */
  readonly status: 'stored' | 'unchanged' | 'missing' | 'failed'
  /** Null when there is none. */
  readonly key: string | null
  /** Null unless `failed`. */
  readonly error: string | null
}

/** What `persist-result drain --json` prints, on one line: the last thing a conductor asks of a sandbox. */
export interface DrainReport {
  readonly v: 1
  readonly outputs: readonly OutputReport[]
  /** Every result of the task in the spool, pending ones included, in key order. */
  readonly records: readonly ResultRecord[]
}
