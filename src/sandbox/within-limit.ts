import { ConductorError } from '../errors.js'
import { admitListeners, joinSignals } from '../signals.js'
import { untilAborted } from '../until-aborted.js'

/**
 * Calls what has to be done within so many milliseconds, and gives it up with a retryable `TIMEOUT` otherwise. For files that a
 * sandbox named: reading one may take for ever (a pipe, a file system of its own making), on a connection that other sandboxes need.
 */
export async function withinLimit<T>(
  limitMs: number,
  doing: string,
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController()
  const timer = setTimeout(() => {
    controller.abort(
      new ConductorError('TIMEOUT', `${doing} took more than ${limitMs} ms`, { retryable: true }),
    )
  }, limitMs)
  try {
    return await call(admitListeners(controller.signal))
  } finally {
    clearTimeout(timer)
  }
}

/** {@link withinLimit}, also of a call that does not heed its signal; what it is at then goes on unheard. */
export async function cutOff<T>(
  limitMs: number,
  doing: string,
  call: (signal: AbortSignal) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  return withinLimit(limitMs, doing, (limit) => {
    const either = joinSignals(limit, signal)
    return untilAborted(call(either), either)
  })
}
