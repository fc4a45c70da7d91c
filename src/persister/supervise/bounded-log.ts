import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { systemCode } from '../../files/system-code.js'
import { piecesOf, type Remark, remarkOn } from './log-pieces.js'
import { takeRoom } from './taken-room.js'
import { type Appended, append } from './wait-for-room.js'

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
  /** A remark of which the disk took but the start, and how much of it; nothing else is written before the rest. */
  #begun: { readonly text: Buffer; readonly sizeBytes: number } | undefined
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
    if (!(await this.#remark())) {
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
    while (this.#begun !== undefined || this.#lostBytes > 0) {
      const { text, sizeBytes: before } = this.#begun ?? { text: remarkOn(this.#lostBytes), sizeBytes: 0 }
      const inHead = this.#headBytes < this.#halfBytes
      let taken: Appended
      try {
        // In one piece, whatever the limit: a half of it would tell nothing.
        const file = inHead ? this.#head : before > 0 ? this.#tail : await this.#openTail()
        if (file === undefined) throw new Error('a remark was begun nowhere')
        taken = await append(file, text.subarray(before), this.#patienceMs)
      } catch (error) {
        taken = { sizeBytes: 0, error }
      }
      const sizeBytes = before + taken.sizeBytes
      if (sizeBytes === 0) return false
      if (!inHead) this.#tailBytes += taken.sizeBytes
      if (before === 0) {
        const end = this.#droppedBytes + this.#olderBytes + this.#tailBytes + text.length - sizeBytes
        if (!inHead) this.#remarks.push({ end, sizeBytes: text.length, lostBytes: this.#lostBytes })
        this.#lostBytes = 0
      }
      this.#begun = sizeBytes < text.length ? { text, sizeBytes } : undefined
      // The next write asks again, and the caller has been told of what failed first.
      if (taken.error !== undefined) return false
    }
    return true
  }

  /** Puts start and end together in the one file. */
  async close(): Promise<void> {
    await this.#queue
    try {
      if (this.#tail !== undefined || this.#olderBytes > 0) await this.#joinTail()
      if (this.#room !== undefined) await rm(this.#room, { force: true })
      await this.#remarkLast()
      await this.#head.sync()
    } finally {
      await this.#head.close()
    }
  }

  async #remarkLast(): Promise<void> {
    const { text: begun, sizeBytes: before } = this.#begun ?? { text: Buffer.alloc(0), sizeBytes: 0 }
    const rest = this.#lostBytes > 0 ? remarkOn(this.#lostBytes) : Buffer.alloc(0)
    const text = Buffer.concat([begun.subarray(before), rest])
    const { sizeBytes, error } = await append(this.#head, text, this.#patienceMs)
    if (error === undefined) return
    // Better none than a part that says another number.
    const { size } = await this.#head.stat()
    const isSaid = begun.length > 0 && before + sizeBytes >= begun.length
    await this.#head.truncate(size - (isSaid ? before + sizeBytes - begun.length : before + sizeBytes))
    throw error
  }

  async #joinTail(): Promise<void> {
    await this.#tail?.close()
    const [older, newer] = [`${this.#path}.tail.old`, `${this.#path}.tail`]
    const unsaid = this.#begun?.text.subarray(this.#begun.sizeBytes) ?? Buffer.alloc(0)
    this.#begun = undefined
    const end = Buffer.concat([await readIfThere(older), await readIfThere(newer), unsaid])
    const pieces = piecesOf(end, this.#droppedBytes, this.#halfBytes, this.#remarks)
    let isFull = false
    for (const piece of pieces) {
      let sizeBytes = 0
      if (!isFull) {
        const taken = await append(this.#head, piece.bytes, this.#patienceMs)
        sizeBytes = taken.sizeBytes
        isFull = taken.error !== undefined
        if (isFull) {
          // They are what takes the room that is lacking here, as far as it is ours.
          for (const path of [older, newer]) await rm(path, { force: true })
          const more = await append(this.#head, piece.bytes.subarray(sizeBytes), 0)
          sizeBytes += more.sizeBytes
          isFull = more.error !== undefined
        }
      }
      if (sizeBytes === piece.bytes.length) continue
      if (!piece.isRemark) this.#lostBytes += piece.bytes.length - sizeBytes
      else if (sizeBytes > 0) this.#begun = { text: piece.bytes, sizeBytes }
      else this.#lostBytes += piece.lostBytes
    }
    for (const path of [older, newer]) await rm(path, { force: true })
  }
}

async function readIfThere(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return Buffer.alloc(0)
    throw error
  }
}
