/** A signal that Ctrl-C or SIGTERM aborts; a second one ends the process at once, as a shell would. */
export function onInterrupt(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      stop.abort(new Error(`interrupted by ${name}`))
      process.once(name, () => process.exit(130))
    })
  }
  return stop.signal
}
