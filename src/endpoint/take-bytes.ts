import { ConductorError } from '../errors.js'

/** The first bytes of a stream; the rest of it is cancelled. Errors with `INTEGRITY` when there are not that many. */
export function takeBytes(source: ReadableStream<Uint8Array>, count: number): ReadableStream<Uint8Array> {
  const reader = source.getReader()
  let left = count
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (left > 0) {
          const { done, value } = await reader.read()
          if (done) throw new ConductorError('INTEGRITY', `the body lacks ${left} of ${count} bytes`)
          const chunk = value.length > left ? value.subarray(0, left) : value
          left -= chunk.length
          controller.enqueue(chunk)
        }
        if (left > 0) return
        controller.close()
        await reader.cancel()
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  )
}
