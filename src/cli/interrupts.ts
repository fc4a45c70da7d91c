import { constants } from 'node:os'

/** Somebody ended the command with a signal. */
export class Interrupted extends Error {
  /** By the convention of shells: 130 for Ctrl-C. */
  readonly exitCode: number

  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`interrupted by ${signal}`)
    this.exitCode = 128 + constants.signals[signal]
  }
}

/** A signal that Ctrl-C or SIGTERM aborts; a second one ends the process at once, as a shell would. */
export function onInterrupt(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      const interrupted = new Interrupted(name)
      stop.abort(interrupted)
      process.once(name, () => process.exit(interrupted.exitCode))
    })
  }
  return stop.signal
}
