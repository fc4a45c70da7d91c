import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import type { ConductorError } from '../errors.js'
import type { GrantEvent } from '../grants/broker/task-broker.js'
import type { DeathCertificate } from '../protocol/death-certificate.js'
import type { Result, TierProblem } from '../results/result.js'
import type { Receipt, WorkerExit } from './receipt.js'

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

/**
 * Where a worker is in its life; `lost` can follow any but `terminated`, `retrying` means that its sandbox was lost and another
 * is being made, and `detached` that somebody else may have it.
 */
export type WorkerState =
  | 'ready'
  | 'running'
  | 'retrying'
  | 'exited'
  | 'draining'
  | 'terminated'
  | 'lost'
  | 'detached'

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

/** Options of one command of a worker. */
export interface RunOptions extends CallOptions {
  /** Overrides the worker's. */
  readonly cwd?: string | undefined
  /** Added to the worker's. */
  readonly env?: Readonly<Record<string, string>> | undefined
  /** Files and folders that are results of this command: persisted when it ends. */
  readonly outputs?: readonly string[] | undefined
}

/** @internal How a command is run, but for its caller's own signal. */
export type CommandOptions = Omit<RunOptions, 'signal'>

/** Options of {@link Worker.terminate}. */
export interface TerminateOptions extends CallOptions {
  /** Goes on although results would be destroyed; the receipt lists them. @default false */
  readonly force?: boolean | undefined
}

/** @internal */
export const runOptionsSchema = z.strictObject({
  cwd: z.string().min(1).optional(),
  env: z.record(z.string(), z.string()).optional(),
  outputs: z.array(z.string().min(1)).optional(),
  signal: z.instanceof(AbortSignal).optional(),
})

/** @internal */
export const extendSchema = z.strictObject({ timeoutMs: z.number().int().min(1).max(86_400_000) })

/** @internal */
export const terminateOptionsSchema = z.strictObject({
  force: z.boolean().default(false),
  signal: z.instanceof(AbortSignal).optional(),
})
