import type { DeathCause, ExitStatus, Outcome } from './outcome.js'
import type { ResultRecord } from './record.js'

/** One sandbox of a task. */
export interface ManifestAttempt {
  /** From 1. */
  readonly attempt: number
  /** Empty where it vanished before any conductor that lives now had seen it. */
  readonly sandbox_id: string
  /** Of the spawn that made the sandbox. */
  readonly spawn_id: string
  /** ISO 8601, UTC. */
  readonly ended_at: string
  readonly outcome: Outcome
  readonly exit: ExitStatus | null
  /** Null when it ended by itself. */
  readonly cause: DeathCause | null
  /** Name of the volume that was its spool, if one was; results may lie nowhere else. */
  readonly volume?: string | undefined
  /** Keys of what this sandbox held when it was drained, or, gone before that, of what was found elsewhere and no other had left. */
  readonly keys: readonly string[]
  /** Declared outputs that did not exist when it was drained, if any. */
  readonly missing_outputs?: readonly string[] | undefined
  /** Outputs that could not be persisted then, if any, and why. */
  readonly failed_outputs?: readonly { readonly path: string; readonly reason: string }[] | undefined
  /** Results that it was known to hold and that were given up, and why. */
  readonly undelivered?: readonly { readonly key: string; readonly reason: string }[] | undefined
}

/** What the conductor writes when a task is sealed; lies where no worker can write. */
export interface Manifest {
  readonly v: 1
  readonly task_id: string
  /** ISO 8601, UTC. */
  readonly sealed_at: string
  readonly outcome: Outcome
  /** Exit of the last command; null when none ran or nobody saw its end. */
  readonly exit: ExitStatus | null
  /** True when no result is to follow: everything that the sandboxes held was accounted for, nothing of it was given up, and they are gone. */
  readonly complete: boolean
  /** Every sandbox that the task had, in the order in which they were sealed. */
  readonly attempts: readonly ManifestAttempt[]
  /**
   * Keys whose deletion has begun and not ended, or `all`. While there are any, what a store lists counts, and not that
   * a result stands in `results`.
   */
  readonly deleting?: 'all' | readonly string[] | undefined
  /** Every result known at sealing and not deleted since, in key order. */
  readonly results: readonly ResultRecord[]
}
