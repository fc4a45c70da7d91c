/** The stream without its first bytes. */
export function skipBytes(source: ReadableStream<Uint8Array>, count: number): ReadableStream<Uint8Array> {
  if (count === 0) return source
  let left = count
  return source.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        if (left >= chunk.length) {
          left -= chunk.length
          return
        }
        controller.enqueue(left === 0 ? chunk : chunk.subarray(left))
        left = 0
      },
    }),
  )
}
