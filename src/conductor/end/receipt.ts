import type { DeathCause, Outcome } from '../../protocol/outcome.js'
import type { StoreTier } from '../../stores/result-store.js'

/** How a worker's last command ended. */
export interface WorkerExit {
  readonly outcome: Outcome
  /** Null when a signal ended it, when nobody saw its end, or when none ran. */
  readonly exitCode: number | null
  /** For example `SIGKILL`. */
  readonly signal: string | null
  /** Why, when it did not end by itself, as far as that can be known. */
  readonly cause?: DeathCause | undefined
}

/** One result as it was delivered. */
export interface DeliveredResult {
  readonly key: string
  readonly sizeBytes: number
  readonly sha256: string
  /** Where it is kept beyond the sandbox's life. */
  readonly tiers: readonly StoreTier[]
  /** True when the store was asked afterwards and has it, with this size and digest. */
  readonly verified: boolean
}

/** One result that was given up. */
export interface GivenUp {
  readonly key: string
  readonly reason: string
}

/** Outputs of which there is no result. */
export interface LackingOutputs {
  /** Declared ones that did not exist. */
  readonly missingOutputs: readonly string[]
  /** Those that could not be persisted, and why. */
  readonly failedOutputs: readonly { readonly path: string; readonly reason: string }[]
}

/** What `terminate()` did, per result and output. */
export interface Receipt extends WorkerExit, LackingOutputs {
  readonly taskId: string
  /** Whether the task's manifest was written: false without S3, and possibly with `force` or while S3 is away. */
  readonly sealed: boolean
  /** The result that tells all that is known of a death; undefined when it ended by itself, or no tier took that. */
  readonly certificateKey?: string | undefined
  readonly results: readonly DeliveredResult[]
  /** Results given up, as far as they are known; only with `force`, or when the sandbox was lost. */
  readonly undelivered: readonly GivenUp[]
  /**
   * Why nobody knows all that the sandbox held, although it was there; only with `force`. It may have held results that this
   * names nowhere, and its manifest is not `complete`.
   */
  readonly unaccounted?: string | undefined
  /** Of the worker's sandboxes before this one, which were lost: what each of them left, the oldest first. */
  readonly earlier?: readonly Receipt[] | undefined
}
