import type { IncomingMessage } from 'node:http'

/** How much is read ahead of whoever takes it. */
const AHEAD_BYTES = 1 << 20

/**
 * A message's body, chunk by chunk as the socket brings them: a stream's own iterator would copy what has piled up into
 * larger ones. Nothing is read before the first chunk is asked for, and leaving early leaves the message as it is.
 */
export class MessageChunks {
  readonly #message: IncomingMessage
  readonly #queue: Buffer[] = []
  #queuedBytes = 0
  #started = false
  #ended = false
  #failure: Error | undefined
  #wake: () => void = () => undefined

  constructor(message: IncomingMessage) {
    this.#message = message
  }

  /** Resolves `undefined` at the end; rejects when the client goes away before. */
  async next(): Promise<Buffer | undefined> {
    if (!this.#started) this.#start()
    for (;;) {
      const chunk = this.#queue.shift()
      if (chunk !== undefined) {
        this.#queuedBytes -= chunk.length
        if (this.#queuedBytes < AHEAD_BYTES) this.#message.resume()
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
    const message = this.#message
    message.on('data', (chunk: Buffer) => {
      this.#queue.push(chunk)
      this.#queuedBytes += chunk.length
      if (this.#queuedBytes >= AHEAD_BYTES) message.pause()
      this.#wake()
    })
    message.once('end', () => {
      this.#ended = true
      this.#wake()
    })
    const fail = (error?: Error): void => {
      this.#failure ??= error ?? new Error('the client went away')
      this.#wake()
    }
    message.once('error', fail).once('close', () => fail())
    if (message.destroyed) fail()
  }
}
