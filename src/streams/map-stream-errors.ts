/** The same stream, whose failures are translated; nothing is read ahead, and cancelling it cancels the source. */
export function mapStreamErrors(
  source: ReadableStream<Uint8Array>,
  mapError: (error: unknown) => Promise<unknown>,
): ReadableStream<Uint8Array> {
  const reader = source.getReader()
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read()
          if (done) controller.close()
          else controller.enqueue(value)
        } catch (error) {
          throw await mapError(error)
        }
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  )
}
