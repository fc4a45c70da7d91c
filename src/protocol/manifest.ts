import type { ResultRecord } from './record.js'

/**
 * How a task ended. `succeeded` and `failed` are the last command's own status, `killed` means somebody stopped it,
 * `timed_out` that its time was up, `lost` that the sandbox went away first, `idle` that it never ran a command.
 */
export type Outcome = 'succeeded' | 'failed' | 'killed' | 'timed_out' | 'lost' | 'idle'

/** What the conductor writes when a task is sealed; lies where no worker can write. */
export interface Manifest {
  readonly v: 1
  readonly task_id: string
  /** ISO 8601, UTC. */
  readonly sealed_at: string
  readonly outcome: Outcome
  /** Exit of the last command; null when none ran or nobody saw its end. */
  readonly exit: { readonly code: number | null; readonly signal: string | null } | null
  /** True when no result can follow: everything in the sandbox was accounted for, and the sandbox is gone. */
  readonly complete: boolean
  /**
   * Keys whose deletion has begun and not ended, or `all`. While there are any, what a store lists counts, and not that
   * a result stands in `results`.
   */
  readonly deleting?: 'all' | readonly string[] | undefined
  /** Every result known at sealing and not deleted since, in key order. */
  readonly results: readonly ResultRecord[]
}
