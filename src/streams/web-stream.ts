import { Readable } from 'node:stream'
import { StreamChunks } from './stream-chunks.js'

/** A Node stream as a web stream whose failures are translated; cancelling it destroys the source. */
export function toWebStream(
  source: Readable,
  mapError: (error: unknown) => unknown,
): ReadableStream<Uint8Array> {
  const chunks = new StreamChunks(source)
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const chunk = await chunks.next()
          if (chunk === undefined) controller.close()
          else controller.enqueue(chunk)
        } catch (error) {
          controller.error(mapError(error))
        }
      },
      cancel(reason) {
        source.destroy(reason instanceof Error ? reason : undefined)
      },
    },
    // No more is read ahead than the source itself does: a reader that stops early costs little more than it read.
    { highWaterMark: 0 },
  )
}

/** Chunks as a Node stream; destroying it ends the source. */
export function toNodeStream(chunks: AsyncIterable<Uint8Array>): Readable {
  return Readable.from(chunks, { objectMode: false })
}

/** Yields a stream's chunks; leaving the loop early cancels the stream. */
export async function* readChunks(source: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = source.getReader()
  let finished = false
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) {
        finished = true
        return
      }
      yield value
    }
  } catch (error) {
    finished = true
    throw error
  } finally {
    if (!finished) await reader.cancel()
    reader.releaseLock()
  }
}
