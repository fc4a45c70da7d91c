import { setMaxListeners } from 'node:events'
import { z } from 'zod'

/**
 * Lets any number of parts of one call listen to its signal at a time. Node takes more than ten for a leak, and says so on the
 * console of whoever runs us: https://nodejs.org/docs/latest-v20.x/api/events.html#eventssetmaxlistenersn-eventtargets
 */
export function admitListeners(signal: AbortSignal): AbortSignal {
  setMaxListeners(0, signal)
  return signal
}

/** Aborts as soon as one of them does, with its reason. */
export function joinSignals(signal: AbortSignal, ...others: readonly (AbortSignal | undefined)[]): AbortSignal
export function joinSignals(...signals: readonly (AbortSignal | undefined)[]): AbortSignal | undefined
export function joinSignals(...signals: readonly (AbortSignal | undefined)[]): AbortSignal | undefined {
  const [signal, ...others] = signals.filter((one) => one !== undefined)
  if (signal === undefined) return undefined
  return admitListeners(others.length === 0 ? signal : AbortSignal.any([signal, ...others]))
}

/** What schemas of options take as `signal`. */
export const signalSchema = z.instanceof(AbortSignal).transform(admitListeners).optional()
