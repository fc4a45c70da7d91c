const FIRST_PAUSE_MS = 500
const MAX_PAUSE_MS = 30_000

/** How long to wait before the given retry, counted from 0: twice as long each time, and never for two conductors the same. */
export function backOffMs(retry: number): number {
  const pauseMs = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** retry)
  return Math.round(pauseMs * (0.5 + Math.random() / 2))
}
