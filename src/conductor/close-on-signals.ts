import type { Conductor } from './conductor.js'

/** Options of {@link closeOnSignals}. */
export interface CloseOnSignalsOptions {
  /** @default SIGINT and SIGTERM */
  readonly signals?: readonly NodeJS.Signals[] | undefined
  /** How long workers may take to be finished, in milliseconds; the rest is left to `recover()`. @default 30,000 */
  readonly timeoutMs?: number | undefined
  /** Told when closing failed for some worker, before the process ends. @default prints a warning */
  readonly onError?: ((error: unknown) => void) | undefined
}

/**
 * Closes a conductor when the process is asked to end, and lets the signal do its work afterwards; a second one does so at once.
 * Nothing happens unless this is called. Returns what takes it back.
 */
export function closeOnSignals(conductor: Conductor, options: CloseOnSignalsOptions = {}): () => void {
  const { signals = ['SIGINT', 'SIGTERM'], timeoutMs = 30_000 } = options
  const onError = options.onError ?? ((error: unknown) => process.emitWarning(String(error)))
  const stop = (): void => {
    for (const signal of signals) process.off(signal, close)
  }
  let isClosing = false
  const close = (signal: NodeJS.Signals): void => {
    if (isClosing) {
      stop()
      process.kill(process.pid, signal)
      return
    }
    isClosing = true
    conductor
      .close({ timeoutMs })
      .catch(onError)
      .finally(() => {
        stop()
        process.kill(process.pid, signal)
      })
  }
  for (const signal of signals) process.on(signal, close)
  return stop
}
