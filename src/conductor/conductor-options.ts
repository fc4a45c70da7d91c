import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import { signalSchema } from '../signals.js'
import type { Worker } from './worker/worker.js'

/** Options of {@link Conductor.attach}. */
export interface AttachOptions extends CallOptions {
  /** Byte of the last command's standard output from which on it is told. @default 0 */
  readonly stdoutOffsetBytes?: number | undefined
  /** The same for its standard error. @default 0 */
  readonly stderrOffsetBytes?: number | undefined
}

/** Options of {@link Conductor.close}. */
export interface CloseOptions extends CallOptions {
  /** What is not finished by then is left as it is, in milliseconds. @default no limit */
  readonly timeoutMs?: number | undefined
}

const offset = z.number().int().nonnegative().default(0)

/** @internal */
export const attachOptionsSchema = z.strictObject({
  signal: signalSchema,
  stdoutOffsetBytes: offset,
  stderrOffsetBytes: offset,
})

/** @internal */
export const closeOptionsSchema = z.strictObject({
  signal: signalSchema,
  timeoutMs: z
    .number()
    .int()
    .positive()
    .max(2 ** 31 - 1)
    .optional(),
})

/** @internal */
export const recoverOptionsSchema = z.strictObject({
  signal: signalSchema,
  onWorker: z
    .custom<(worker: Worker) => void>((value) => typeof value === 'function', 'must be a function')
    .optional(),
})
