import type { Readable, Writable } from 'node:stream'
import { describeError } from '../fs-error.js'
import type { BoundedLog } from './bounded-log.js'

/** More than a pipe or a socket holds: whoever has read as much has read what was in it when the reading began. */
const MOST_UNDER_WAY_BYTES = 1 << 20

/** Passes a stream of the command through and keeps it; a log or a reader that fails does not stop the other. */
export class OutputCopy {
  readonly #from: Readable
  readonly #to: Writable
  readonly #log: BoundedLog
  readonly #warn: (line: string) => void
  #warned = false
  /** Bytes that are still taken; infinite while the command may write more. */
  #leftBytes = Number.POSITIVE_INFINITY
  #stopWaiting: (() => void) | undefined
  #isOver = false
  /** Resolves when all is passed on and in the log, or reported as missing there; never rejects. */
  readonly ended: Promise<void>

  constructor(from: Readable, to: Writable, log: BoundedLog, warn: (line: string) => void) {
    this.#from = from
    this.#to = to
    this.#log = log
    this.#warn = warn
    this.ended = this.#run()
  }

  /**
   * Takes all that was written to the stream by now, however long the disk and the reader are over it, but waits for nothing
   * more: processes that the command left behind may hold it open for ever.
   */
  finish(): Promise<void> {
    this.#leftBytes = MOST_UNDER_WAY_BYTES
    this.#stopWaiting?.()
    return this.ended
  }

  async #run(): Promise<void> {
    const chunks: AsyncIterator<Buffer> = this.#from[Symbol.asyncIterator]()
    while (this.#leftBytes > 0) {
      const chunk = await this.#arrival(this.#next(chunks))
      if (chunk === undefined) break
      this.#leftBytes -= chunk.length
      await this.#keep(chunk)
    }
    this.#isOver = true
    this.#from.destroy()
  }

  /** The next chunk; `undefined` at the end. */
  async #next(chunks: AsyncIterator<Buffer>): Promise<Buffer | undefined> {
    try {
      const { value, done } = await chunks.next()
      return done === true ? undefined : value
    } catch (error) {
      // Taking the stream down ends it with an error that says only that.
      if (!this.#isOver) this.#complain(error)
      return undefined
    }
  }

  /** Waits for a chunk; once no more is to be waited for, gives `undefined` instead of one that is not there yet. */
  #arrival(next: Promise<Buffer | undefined>): Promise<Buffer | undefined> {
    return new Promise((done) => {
      // After a whole turn of the event loop whatever was there has been read.
      this.#stopWaiting = () => setImmediate(() => setImmediate(() => done(undefined)))
      if (Number.isFinite(this.#leftBytes)) this.#stopWaiting()
      void next.then(done)
    })
  }

  async #keep(chunk: Buffer): Promise<void> {
    const passed = new Promise<void>((done) => this.#to.write(chunk, () => done()))
    await this.#log.write(chunk).catch((error: unknown) => this.#complain(error))
    await passed
  }

  #complain(error: unknown): void {
    if (!this.#warned) this.#warn(`not all of the command's output is kept: ${describeError(error)}`)
    this.#warned = true
  }
}
