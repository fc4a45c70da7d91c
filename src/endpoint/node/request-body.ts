import type { IncomingMessage, ServerResponse } from 'node:http'
import { StreamChunks } from '../../streams/stream-chunks.js'

/** How much of a refused body is read so that the client gets to the answer. */
const DRAIN_BYTES = 64 << 20
const DRAIN_MS = 10_000
/** A client that sends nothing for so long is waiting for the answer, or gone. */
const DRAIN_IDLE_MS = 250

/** The body of a request, read as it is asked for. */
export class RequestBody {
  /** Cancelling it leaves the connection open, so that the answer can still be sent. */
  readonly stream: ReadableStream<Uint8Array>
  readonly #message: IncomingMessage
  readonly #chunks: StreamChunks
  /** Whether the client holds the body back until it is told to go on. */
  #heldBack: boolean

  /** `continues` is where `100 Continue` is sent once somebody reads; without it the server has done so already. */
  constructor(message: IncomingMessage, continues: ServerResponse | undefined) {
    this.#message = message
    this.#chunks = new StreamChunks(message)
    this.#heldBack = continues !== undefined && message.headers.expect !== undefined
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
      if (this.#heldBack) continues?.writeContinue()
      this.#heldBack = false
      const chunk = await this.#chunks.next()
      if (chunk === undefined) controller.close()
      else controller.enqueue(chunk)
    }
    this.stream = new ReadableStream<Uint8Array>({ pull }, { highWaterMark: 0 })
  }

  /** Reads what nobody read: closing a connection with unread data resets it, and the client would not see the answer. */
  async drain(): Promise<void> {
    const message = this.#message
    if (message.complete || message.destroyed || this.#heldBack) return
    let giveUp: () => void = () => undefined
    const quiet = new Promise<undefined>((resolve) => {
      giveUp = () => resolve(undefined)
    })
    const idle = setTimeout(giveUp, DRAIN_IDLE_MS)
    const timer = setTimeout(giveUp, DRAIN_MS)
    try {
      for (let seenBytes = 0; seenBytes < DRAIN_BYTES; ) {
        const chunk = await Promise.race([this.#chunks.next(), quiet])
        if (chunk === undefined) break
        seenBytes += chunk.length
        idle.refresh()
      }
    } catch {
      // The client went away; it has its answer or does not want it.
    } finally {
      clearTimeout(idle)
      clearTimeout(timer)
    }
  }
}
