import { isConductorError } from '../../errors.js'
import { nowMs } from '../clock.js'

const FIRST_WAIT_MS = 150
const LONGEST_WAIT_MS = 8_000

/** How often and how long something is tried again. */
export interface RetryOptions {
  readonly attempts: number
  /** On the clock of {@link nowMs}; no attempt starts after it. */
  readonly deadlineAtMs: number
  readonly signal?: AbortSignal | undefined
}

const waits = new WeakMap<Error, number>()

/** Notes how long the other side asked to be left alone (`Retry-After`), for {@link withRetry}. */
export function askForWait<E extends Error>(error: E, header: string | undefined): E {
  const seconds = Number(header)
  if (header !== undefined && Number.isFinite(seconds) && seconds >= 0) waits.set(error, seconds * 1000)
  return error
}

/** Repeats what fails with a retryable error, after waits that double, with jitter; the last error is thrown. */
export async function withRetry<T>(
  attempt: () => Promise<T>,
  { attempts, deadlineAtMs, signal }: RetryOptions,
): Promise<T> {
  for (let made = 1; ; made++) {
    try {
      return await attempt()
    } catch (error) {
      if (signal?.aborted === true) throw signal.reason
      if (!isConductorError(error) || !error.retryable || made >= attempts) throw error
      const backoffMs = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (made - 1)) * (0.5 + Math.random() / 2)
      const waitMs = Math.max(backoffMs, Math.min(waits.get(error) ?? 0, 20_000))
      if (nowMs() + waitMs >= deadlineAtMs) throw error
      const { setTimeout: sleep } = await import('node:timers/promises')
      await sleep(waitMs, undefined, signal === undefined ? {} : { signal })
    }
  }
}
