import { setTimeout as delay } from 'node:timers/promises'
import { isConductorError } from '../errors.js'

const FIRST_PAUSE_MS = 500
const MAX_PAUSE_MS = 30_000

/** How often what must not be left undone is tried. */
const MAX_TRIES = 5

/** How long to wait before the given retry, counted from 0: twice as long each time, and never for two conductors the same. */
export function backOffMs(retry: number): number {
  const pauseMs = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** retry)
  return Math.round(pauseMs * (0.5 + Math.random() / 2))
}

/** Tries what must not be left undone a few times, some seconds in all unless more tries are asked for, as long as another go may help. */
export async function insist<T>(what: () => Promise<T>, maxTries = MAX_TRIES): Promise<T> {
  for (let retry = 0; ; retry++) {
    try {
      return await what()
    } catch (error) {
      if (!isConductorError(error) || !error.retryable || retry === maxTries - 1) throw error
      await delay(backOffMs(retry))
    }
  }
}
