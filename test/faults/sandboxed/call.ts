import type { AcknowledgedResult } from '../messages.js'
import type { Via } from '../plan.js'

/** One call of the persister, made by whichever of its faces. */
export interface PersistCall {
  readonly via: Via
  /** A path, or `-` for standard input. */
  readonly path: string
  readonly input: Buffer | undefined
  readonly name: string
  readonly metadata: Record<string, unknown>
  readonly requireRemote: boolean
}

/** How a call ended. */
export type CallEnd =
  | { readonly status: 'acknowledged'; readonly result: AcknowledgedResult }
  | { readonly status: 'refused'; readonly said: string }
  /** It ended without an answer, by a kill or by itself. */
  | { readonly status: 'died'; readonly said: string }

/** A call under way, and the process group that makes it. */
export interface RunningCall {
  readonly pid: number
  readonly end: Promise<CallEnd>
  /** Resolves once its process is gone; one that serves further calls may stay. */
  readonly gone: Promise<void>
}
