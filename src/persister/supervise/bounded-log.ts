import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { systemCode } from '../../files/system-code.js'
import { takeRoom } from './taken-room.js'
import { append } from './wait-for-room.js'

/** A remark in the tail, which stands for bytes that the disk did not take. */
interface Remark {
  /** Where it ends, by all bytes that the tail ever got. */
  readonly end: number
  readonly sizeBytes: number
  readonly lostBytes: number
}

/**
 * A log file that keeps the start and the end of what is written to it. The start is in the file at once; the end lies in
 * two rotating files beside it until {@link BoundedLog.close} appends it with a line that says how much is missing. What the disk
 * does not take is missing too, and a line in its place says so.
 */
export class BoundedLog {
  readonly #path: string
  readonly #halfBytes: number
  readonly #head: FileHandle
  /** Room for the last remark, on a disk that is full to the end. */
  readonly #room: string | undefined
  #headBytes = 0
  #tail: FileHandle | undefined
  #tailBytes = 0
  /** Bytes in the rotated file, none before the first rotation. */
  #olderBytes = 0
  #droppedBytes = 0
  /** Bytes since the last that were written. */
  #lostBytes = 0
  /** How long a full disk is waited for; undefined as long as anybody waits for one. */
  #patienceMs: number | undefined
  readonly #remarks: Remark[] = []
  #queue: Promise<void> = Promise.resolve()

  private constructor(path: string, halfBytes: number, head: FileHandle, patienceMs: number | undefined) {
    this.#path = path
    this.#patienceMs = patienceMs
    this.#halfBytes = halfBytes
    this.#head = head
    this.#room = takeRoom(dirname(path))
  }

  /** Starts an empty log of at most about `limitBytes`. */
  static async open(path: string, limitBytes: number, patienceMs?: number): Promise<BoundedLog> {
    const halfBytes = Math.max(1, Math.floor(limitBytes / 2))
    return new BoundedLog(path, halfBytes, await open(path, 'w', 0o644), patienceMs)
  }

  /** Appends bytes; resolves when they are with the system. Rejects when the disk did not take all of them; the next may be kept again. */
  write(chunk: Buffer): Promise<void> {
    const written = this.#queue.then(() => this.#append(chunk))
    // The next write is to be tried whatever became of this one; the caller learns of it from its own promise.
    this.#queue = written.catch(() => {})
    return written
  }

  async #append(chunk: Buffer): Promise<void> {
    if (this.#lostBytes > 0 && !(await this.#remark())) {
      this.#lostBytes += chunk.length
      return
    }
    for (let rest = chunk; rest.length > 0; ) {
      const { sizeBytes, error } = await this.#appendSome(rest)
      rest = rest.subarray(sizeBytes)
      if (error === undefined) continue
      this.#lostBytes = rest.length
      // It was waited for once; to wait for every line would hold up the command.
      this.#patienceMs = 0
      throw error
    }
  }

  /** Appends what the present file has room for by its limit. */
  async #appendSome(bytes: Buffer): Promise<{ readonly sizeBytes: number; readonly error?: unknown }> {
    const room = this.#halfBytes - this.#headBytes
    if (room > 0) {
      const taken = await append(this.#head, bytes.subarray(0, room), this.#patienceMs)
      this.#headBytes += taken.sizeBytes
      return taken
    }
    try {
      const tail = await this.#openTail()
      const part = bytes.subarray(0, this.#halfBytes - this.#tailBytes)
      const taken = await append(tail, part, this.#patienceMs)
      this.#tailBytes += taken.sizeBytes
      return taken
    } catch (error) {
      return { sizeBytes: 0, error }
    }
  }

  /** The file that the end goes into, another one after each half of the limit. */
  async #openTail(): Promise<FileHandle> {
    if (this.#tail !== undefined && this.#tailBytes >= this.#halfBytes) {
      await rename(`${this.#path}.tail`, `${this.#path}.tail.old`)
      this.#droppedBytes += this.#olderBytes
      this.#olderBytes = this.#tailBytes
      this.#tailBytes = 0
      const full = this.#tail
      this.#tail = undefined
      await full.close()
    }
    this.#tail ??= await open(`${this.#path}.tail`, 'w', 0o644)
    return this.#tail
  }

  /** Says where something is missing what is; false while there is no room for it either. */
  async #remark(): Promise<boolean> {
    const text = Buffer.from(remarkOn(this.#lostBytes))
    const inHead = this.#headBytes < this.#halfBytes
    try {
      // In one piece, whatever the limit: a half of it would tell nothing. What of it is there after a failure stays.
      const file = inHead ? this.#head : await this.#openTail()
      const { sizeBytes, error } = await append(file, text, this.#patienceMs)
      if (!inHead) this.#tailBytes += sizeBytes
      if (error !== undefined) return false
    } catch {
      // The next write asks again, and the caller has been told of what failed first.
      return false
    }
    const end = this.#droppedBytes + this.#olderBytes + this.#tailBytes
    if (!inHead) this.#remarks.push({ end, sizeBytes: text.length, lostBytes: this.#lostBytes })
    this.#lostBytes = 0
    return true
  }

  /** Puts start and end together in the one file. */
  async close(): Promise<void> {
    await this.#queue
    try {
      if (this.#tail !== undefined || this.#olderBytes > 0) await this.#joinTail()
      if (this.#room !== undefined) await rm(this.#room, { force: true })
      if (this.#lostBytes > 0) {
        const { error } = await append(this.#head, Buffer.from(remarkOn(this.#lostBytes)), this.#patienceMs)
        if (error !== undefined) throw error
      }
      await this.#head.sync()
    } finally {
      await this.#head.close()
    }
  }

  async #joinTail(): Promise<void> {
    await this.#tail?.close()
    const [older, newer] = [`${this.#path}.tail.old`, `${this.#path}.tail`]
    const end = Buffer.concat([await readIfThere(older), await readIfThere(newer)])
    const before = this.#droppedBytes
    const limit = before + Math.max(0, end.length - this.#halfBytes)
    const halved = this.#remarks.find((one) => one.end - one.sizeBytes < limit && limit < one.end)
    const cut = halved?.end ?? limit
    const kept = end.subarray(cut - before)
    // A remark that is left out itself gives way to the bytes that it stood for.
    const lost = this.#remarks
      .filter((one) => one.end <= cut)
      .reduce((sum, { lostBytes, sizeBytes }) => sum + lostBytes - sizeBytes, 0)
    const missingBytes = cut + lost
    const gap = missingBytes > 0 ? `\n[persist-result: ${missingBytes} bytes left out]\n` : ''
    const text = Buffer.concat([Buffer.from(gap), kept])
    const { sizeBytes, error } = await append(this.#head, text, this.#patienceMs)
    // They are what takes the room that is lacking here, as far as it is ours.
    for (const path of [older, newer]) await rm(path, { force: true })
    if (error === undefined) return
    const rest = text.subarray(sizeBytes)
    this.#lostBytes += rest.length - (await append(this.#head, rest, 0)).sizeBytes
  }
}

function remarkOn(lostBytes: number): string {
  return `\n[persist-result: ${lostBytes} bytes could not be written]\n`
}

async function readIfThere(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return Buffer.alloc(0)
    throw error
  }
}
