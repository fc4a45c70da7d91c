import type { StoredAt } from '../../src/protocol/record.js'
import type { PersisterFault, Via, WorkerKind } from './plan.js'

/** What the program in a sandbox is told, as JSON in `LAB_ORDER`. */
export interface WorkerOrder {
  readonly seed: number
  readonly taskId: string
  readonly kind: WorkerKind
  /** Numbers of operations. */
  readonly operations: readonly number[]
  readonly exitCode: number
  /** Where outcomes are reported. */
  readonly reportUrl: string
  /** Whether it waits, half of its work done, until the laboratory lets it go on. */
  readonly holds: boolean
  readonly printsBinary?: boolean
  /** Whether this is a further command in a sandbox whose worker has done its work. */
  readonly isFurther?: boolean
}

/** What became of one call of the persister. Reported only after it ended, and an `acknowledged` only after it said so. */
export interface Outcome {
  readonly taskId: string
  /** Which of the worker's sandboxes it was called in. @default 1 */
  readonly life?: number
  readonly operation: number
  readonly attempt: number
  readonly via: Via
  /** What was done to it; one that ended before its fault had none. */
  readonly fault: PersisterFault
  /** One that ended without an answer was killed, or has crashed by itself. */
  readonly status: 'acknowledged' | 'refused' | 'killed' | 'crashed'
  /** Of an acknowledged one. */
  readonly result?: AcknowledgedResult
  /** What it said when it refused or crashed. */
  readonly said?: string
}

/** What the persister said it stored. */
export interface AcknowledgedResult {
  readonly key: string
  readonly sha256: string
  readonly size: number
  readonly stored: readonly Pick<StoredAt, 'tier'>[]
}

/** A report of a sandbox. */
export type Report =
  | { readonly kind: 'outcome'; readonly outcome: Outcome }
  /** The operation needs no further attempt in any worker. */
  | { readonly kind: 'done'; readonly taskId: string; readonly operation: number }
  /** The declared output was written. */
  | { readonly kind: 'finished'; readonly taskId: string; readonly life: number }

/** What the laboratory tells a conductor's process. */
export type ConductorOrder =
  | {
      readonly do: 'spawn'
      readonly taskId: string
      readonly kind: WorkerKind
      readonly spawn: SpawnOrder
    }
  /** Goes on with what an earlier conductor left: task by task from where it was heard last, or all at once. */
  | {
      readonly do: 'take over'
      readonly how: 'attach' | 'recover'
      readonly tasks: readonly { readonly taskId: string; readonly seen: SeenBytes | undefined }[]
    }
  /** Ends a worker whatever becomes of its results. */
  | { readonly do: 'kill'; readonly taskId: string }
  /** Meddles with a worker that another conductor has. */
  | {
      readonly do: 'meddle'
      readonly how: MeddlingWay
      readonly taskId: string
      /** For a command after the worker's own. */
      readonly run: { readonly command: string; readonly env: Readonly<Record<string, string>> }
    }

/**
 * What a second conductor does with a worker of the first: takes it up and runs a further command as soon as its own has ended,
 * ends it while that runs, or recovers everything there is.
 */
export type MeddlingWay = 'run' | 'terminate' | 'recover'

/** How much of a worker's output earlier conductors have passed on; undefined where it is to be told anew. */
export interface SeenBytes {
  readonly stdout: number
  readonly stderr: number
}

/** What a conductor is asked to spawn. */
export interface SpawnOrder {
  readonly command: string
  readonly files: Readonly<Record<string, string>>
  readonly outputs: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly volume?: string
  readonly retriesLost?: number
  readonly undeclared?: { readonly roots: readonly string[] }
  /** Whoever takes it up has all of its output told from the start. */
  readonly rereads?: boolean
}

/** What a conductor's process tells the laboratory. */
export type ConductorEvent =
  | { readonly event: 'started' }
  /** A worker runs; what it prints follows, from the first byte or from where it was heard last. */
  | {
      readonly event: 'running'
      readonly taskId: string
      readonly sandboxId: string
      readonly life: number
      readonly from: 'start' | 'seen'
    }
  | { readonly event: 'not running'; readonly taskId: string; readonly problem: string }
  | {
      readonly event: 'output'
      readonly taskId: string
      readonly stream: 'stdout' | 'stderr'
      readonly text: string
    }
  | { readonly event: 'exit'; readonly taskId: string }
  /** What came of an order to kill or to meddle. */
  | { readonly event: 'obeyed'; readonly taskId: string; readonly well: boolean }
  /** Its sandbox was lost, and another takes its place. */
  | { readonly event: 'retrying'; readonly taskId: string }
  | {
      readonly event: 'receipt'
      readonly taskId: string
      readonly receipt: LabReceipt
      /** False when its sandbox had vanished before this conductor came, which told nothing of its output. */
      readonly heard: boolean
    }
  | { readonly event: 'problem'; readonly taskId: string; readonly problem: string }
  /** There is nothing of the task to go on with. */
  | { readonly event: 'absent'; readonly taskId: string }

/** The part of a receipt that is checked. */
export interface LabReceipt {
  /** Which of the worker's sandboxes it is of; undefined where nothing but the receipt was seen. */
  readonly life: number | undefined
  readonly outcome: string
  readonly exitCode: number | null
  readonly sealed: boolean
  /** Why it did not end by itself, if so. */
  readonly cause: string | undefined
  readonly results: readonly {
    readonly key: string
    readonly sha256: string
    readonly tiers: readonly string[]
  }[]
  readonly undelivered: readonly { readonly key: string; readonly reason: string }[]
  readonly missingOutputs: readonly string[]
  readonly failedOutputs: readonly { readonly path: string; readonly reason: string }[]
}
