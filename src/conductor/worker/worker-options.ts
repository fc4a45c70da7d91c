import { z } from 'zod'
import type { CallOptions } from '../../call-options.js'
import { signalSchema } from '../../signals.js'

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

/** How far the output of a worker's last command was told, in bytes from its start; what {@link Conductor.attach} goes on from. */
export interface OutputOffsets {
  readonly stdoutOffsetBytes: number
  readonly stderrOffsetBytes: number
}

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
  signal: signalSchema,
})

/** @internal */
export const extendSchema = z.strictObject({ timeoutMs: z.number().int().min(1).max(86_400_000) })

/** @internal */
export const terminateOptionsSchema = z.strictObject({
  force: z.boolean().default(false),
  signal: signalSchema,
})
