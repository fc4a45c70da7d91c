import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises'
import { append } from './wait-for-room.js'

/**
 * A log file that keeps the start and the end of what is written to it. The start is in the file at once; the end lies in
 * two rotating files beside it until {@link BoundedLog.close} appends it with a line that says how much is missing.
 */
export class BoundedLog {
  readonly #path: string
  readonly #halfBytes: number
  readonly #head: FileHandle
  #headBytes = 0
  #tail: FileHandle | undefined
  #tailBytes = 0
  /** Bytes in the rotated file, none before the first rotation. */
  #olderBytes = 0
  #droppedBytes = 0
  #queue: Promise<void> = Promise.resolve()

  private constructor(path: string, halfBytes: number, head: FileHandle) {
    this.#path = path
    this.#halfBytes = halfBytes
    this.#head = head
  }

  /** Starts an empty log of at most about `limitBytes`. */
  static async open(path: string, limitBytes: number): Promise<BoundedLog> {
    return new BoundedLog(path, Math.max(1, Math.floor(limitBytes / 2)), await open(path, 'w', 0o644))
  }

  /** Appends bytes; resolves when they are with the system. Rejects when the disk does not take them. */
  write(chunk: Buffer): Promise<void> {
    const written = this.#queue.then(() => this.#append(chunk))
    // The next write is to be tried whatever became of this one; the caller learns of it from its own promise.
    this.#queue = written.catch(() => {})
    return written
  }

  async #append(chunk: Buffer): Promise<void> {
    const room = this.#halfBytes - this.#headBytes
    const start = chunk.subarray(0, room)
    if (start.length > 0) {
      await append(this.#head, start)
      this.#headBytes += start.length
    }
    let rest = chunk.subarray(start.length)
    while (rest.length > 0) {
      if (this.#tail === undefined || this.#tailBytes >= this.#halfBytes) await this.#rotate()
      const part = rest.subarray(0, this.#halfBytes - this.#tailBytes)
      if (this.#tail !== undefined) await append(this.#tail, part)
      this.#tailBytes += part.length
      rest = rest.subarray(part.length)
    }
  }

  async #rotate(): Promise<void> {
    if (this.#tail !== undefined) {
      await this.#tail.close()
      this.#droppedBytes += this.#olderBytes
      this.#olderBytes = this.#tailBytes
      await rename(`${this.#path}.tail`, `${this.#path}.tail.old`)
    }
    this.#tail = await open(`${this.#path}.tail`, 'w', 0o644)
    this.#tailBytes = 0
  }

  /** Puts start and end together in the one file. */
  async close(): Promise<void> {
    await this.#queue
    try {
      if (this.#tail !== undefined) await this.#joinTail(this.#tail)
      await this.#head.sync()
    } finally {
      await this.#head.close()
    }
  }

  async #joinTail(tail: FileHandle): Promise<void> {
    await tail.close()
    const older = this.#olderBytes === 0 ? Buffer.alloc(0) : await readFile(`${this.#path}.tail.old`)
    const newer = await readFile(`${this.#path}.tail`)
    const end = Buffer.concat([older, newer])
    const kept = end.subarray(Math.max(0, end.length - this.#halfBytes))
    const missingBytes = this.#droppedBytes + end.length - kept.length
    const gap = missingBytes > 0 ? `\n[persist-result: ${missingBytes} bytes left out]\n` : ''
    await append(this.#head, Buffer.from(gap))
    await append(this.#head, kept)
    await rm(`${this.#path}.tail.old`, { force: true })
    await rm(`${this.#path}.tail`, { force: true })
  }
}
