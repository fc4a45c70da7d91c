/** How patient the persister is with a remote tier. */
export interface Limits {
  /** Time to reach the other side, in milliseconds. */
  readonly connectMs: number
  /** Longest time without a byte moving in either direction, in milliseconds. */
  readonly stallMs: number
  /** Time after which a tier is given up for a body of no size, in milliseconds; see {@link tierDeadlineMs}. */
  readonly deadlineMs: number
}

/** Slowest rate that a big body is given time for, in bytes per second. */
const SLOWEST_BYTES_PER_SECOND = 256 * 1024

const DEFAULTS: Limits = { connectMs: 10_000, stallMs: 30_000, deadlineMs: 120_000 }

function seconds(value: string | undefined, otherwiseMs: number): number {
  const number = Number(value)
  return value !== undefined && Number.isFinite(number) && number > 0 ? number * 1000 : otherwiseMs
}

/** Limits from `WORKER_RESULTS_STALL_SECONDS` and `WORKER_RESULTS_DEADLINE_SECONDS`, defaults applied. */
export function readLimits(env: Readonly<Record<string, string | undefined>>): Limits {
  const stallMs = seconds(env.WORKER_RESULTS_STALL_SECONDS, DEFAULTS.stallMs)
  return {
    connectMs: Math.min(DEFAULTS.connectMs, stallMs),
    stallMs,
    deadlineMs: seconds(env.WORKER_RESULTS_DEADLINE_SECONDS, DEFAULTS.deadlineMs),
  }
}

/** How long one tier may work on one body of a size, retries included. */
export function tierDeadlineMs(limits: Limits, sizeBytes: number): number {
  return limits.deadlineMs + (sizeBytes / SLOWEST_BYTES_PER_SECOND) * 1000
}
