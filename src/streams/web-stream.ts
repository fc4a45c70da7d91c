import { Readable } from 'node:stream'
import { StreamChunks } from './stream-chunks.js'

/** Where the chunks of streams made here come from: whoever reads one whole does not need the stream around them. */
const origins = new WeakMap<ReadableStream<Uint8Array>, () => Promise<Uint8Array | undefined>>()

/** A Node stream as a web stream whose failures are translated; cancelling it destroys the source. */
export function toWebStream(
  source: Readable,
  mapError: (error: unknown) => unknown,
): ReadableStream<Uint8Array> {
  const chunks = new StreamChunks(source)
  const next = (): Promise<Uint8Array | undefined> =>
    chunks.next().catch((error: unknown) => {
      throw mapError(error)
    })
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const chunk = await next()
        if (chunk === undefined) controller.close()
        else controller.enqueue(chunk)
      },
      cancel(reason) {
        source.destroy(reason instanceof Error ? reason : undefined)
      },
    },
    // No more is read ahead than the source itself does: a reader that stops early costs little more than it read.
    { highWaterMark: 0 },
  )
  origins.set(stream, next)
  return stream
}

/** Chunks as a Node stream; destroying it ends the source. */
export function toNodeStream(chunks: AsyncIterable<Uint8Array>): Readable {
  return Readable.from(chunks, { objectMode: false })
}

/** Yields a stream's chunks; leaving the loop early cancels the stream. */
export async function* readChunks(source: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = source.getReader()
  const next = origins.get(source) ?? (async () => (await reader.read()).value)
  let finished = false
  try {
    for (;;) {
      const chunk = await next()
      if (chunk === undefined) {
        finished = true
        return
      }
      yield chunk
    }
  } catch (error) {
    finished = true
    throw error
  } finally {
    if (!finished) await reader.cancel()
    reader.releaseLock()
  }
}
