import type { ConductorError } from '../../errors.js'
import type { GrantEvent } from '../../grants/broker/task-broker.js'
import type { DeathCertificate } from '../../protocol/death-certificate.js'
import type { Result, TierProblem } from '../../results/result.js'
import type { Receipt, WorkerExit } from '../end/receipt.js'
import type { WorkerState } from './worker-life.js'

/** A worker's sandbox was lost, and its command is about to begin again in another one. */
export interface WorkerRetry {
  /** Number of the attempt that follows. */
  readonly attempt: number
  /** What is known of the end of the one before. */
  readonly certificate: DeathCertificate
  /** What the one before had delivered. */
  readonly receipt: Receipt
  /** How long is waited first, in milliseconds. */
  readonly delayMs: number
}

/** What a worker tells while it lives. */
export interface WorkerEvents {
  state: [state: WorkerState]
  /** Text as it arrives. */
  stdout: [text: string]
  stderr: [text: string]
  /** A result was stored, in the spool at least; once per result. */
  result: [result: Result]
  /** The worker asked its conductor for a signed request, and what it was given; never holds a signature. */
  grant: [event: GrantEvent]
  /** A command ended; once per command. */
  exit: [exit: WorkerExit]
  /** The worker's time is nearly up, at that moment: its command was asked to end and has `graceMs` to save its work. */
  deadline: [at: Date]
  /** The sandbox went away by itself, and the command begins again in another: all its output follows once more. */
  retry: [retry: WorkerRetry]
  /** The sandbox went away by itself, and no other takes its place. */
  lost: [error: ConductorError]
  /** A tier failed or lied while another could help. */
  problem: [problem: TierProblem]
}
