import type { Readable } from 'node:stream'

/** How much is read ahead of whoever takes it. */
const AHEAD_BYTES = 1 << 20

/**
 * A Node stream's chunks as they come: its own iterator would copy what has piled up into larger ones. Nothing is read before
 * the first chunk is asked for, and leaving early leaves the stream as it is.
 */
export class StreamChunks {
  readonly #source: Readable
  readonly #queue: Buffer[] = []
  #queuedBytes = 0
  #started = false
  #ended = false
  #failure: Error | undefined
  #wake: () => void = () => undefined

  constructor(source: Readable) {
    this.#source = source
    const fail = (error: Error | null | undefined): void => {
      this.#failure ??= error ?? Object.assign(new Error('the other side went away'), { code: 'ECONNRESET' })
      this.#wake()
    }
    // From now on: what goes wrong before anybody asks is told to who does.
    source.once('error', fail).once('close', () => {
      if (!this.#ended) fail(source.errored)
    })
    if (source.destroyed) fail(source.errored)
  }

  /** Resolves `undefined` at the end; rejects when the stream fails or is closed before. */
  async next(): Promise<Buffer | undefined> {
    if (!this.#started) this.#start()
    for (;;) {
      const chunk = this.#queue.shift()
      if (chunk !== undefined) {
        this.#queuedBytes -= chunk.length
        if (this.#queuedBytes < AHEAD_BYTES) this.#source.resume()
        freeYoungBuffers()
        return chunk
      }
      if (this.#ended) return undefined
      if (this.#failure !== undefined) throw this.#failure
      await new Promise<void>((wake) => {
        this.#wake = wake
      })
    }
  }

  #start(): void {
    this.#started = true
    const source = this.#source
    source.on('data', (chunk: Buffer) => {
      this.#queue.push(chunk)
      this.#queuedBytes += chunk.length
      if (this.#queuedBytes >= AHEAD_BYTES) source.pause()
      this.#wake()
    })
    source.once('end', () => {
      this.#ended = true
      this.#wake()
    })
  }
}

/**
 * V8 looks at how much memory young buffers hold when it allocates one of its own, and then frees those nobody needs in a quick
 * collection. Buffers that Node reads into are none of its own: of them alone it only learns when so many have piled up that it
 * marks the whole heap, once for every 30 MB that come.
 */
function freeYoungBuffers(): ArrayBuffer {
  return new ArrayBuffer(1)
}
