import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { BodyFacts } from '../stores/result-store.js'
import { writeAll } from '../streams/write-all.js'
import { claimPart, releasePart, takeOver } from './part-name.js'
import { DigestCheck } from './verify.js'

const READ_BYTES = 1 << 20
/** What is written in one go: most results are no larger, and each call of the file system costs more than its bytes. */
const WRITE_BYTES = 1 << 20
/** How long bytes of a slow source wait for more: what has come shall outlive this process. */
const WRITE_AFTER_MS = 50
/** How much may wait for the disk before the source has to. */
const MAX_WAITING_BYTES = 2 * WRITE_BYTES

/**
 * A file on its way to its name, kept when a read breaks off so that a later call, also of another process, goes on with it.
 * It has one writer: its name says which, and whoever takes over that of a process that has ended renames it, which only one
 * can do. What is of another result, or of another version of it, is removed.
 */
export class PartFile {
  readonly #path: string
  readonly #target: string
  readonly #expected: BodyFacts | undefined
  readonly #file: FileHandle
  #check: DigestCheck | undefined
  #size = 0
  /** The last bytes, whose writing has not begun. */
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #writtenBytes = 0
  #writing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #failure: unknown

  private constructor(
    path: string,
    target: string,
    expected: BodyFacts | undefined,
    file: FileHandle,
    check: DigestCheck | undefined,
  ) {
    this.#path = path
    this.#target = target
    this.#expected = expected
    this.#file = file
    this.#check = check
  }

  /**
   * Goes on with what an earlier call left for this target, or begins; `siblings` are the names in the target's folder. Without a
   * description nothing can be gone on with; with one that has no digest it rejects with `INTEGRITY`.
   */
  static async open(
    target: string,
    expected: BodyFacts | undefined,
    siblings: readonly string[],
  ): Promise<PartFile> {
    const check = checkFor(expected)
    const whole = resolve(target)
    const name = claimPart(whole, expected)
    const { path } = name
    try {
      const taken = await takeOver(name, siblings)
      const file = await open(path, taken ? 'r+' : 'wx+')
      const part = new PartFile(path, whole, expected, file, check)
      try {
        if (taken) await part.#readBack()
      } catch (error) {
        await file.close()
        throw error
      }
      return part
    } catch (error) {
      releasePart(path)
      throw error
    }
  }

  /** Bytes that it holds. */
  get size(): number {
    return this.#size
  }

  /** Takes bytes that go to the disk in the background, many small chunks at once. */
  append(chunk: Uint8Array): void {
    this.#check?.update(chunk)
    this.#waiting.push(chunk)
    this.#waitingBytes += chunk.length
    this.#size += chunk.length
    if (this.#waitingBytes >= WRITE_BYTES) this.#startWriting()
    else this.#writeSoon()
  }

  /** Whether the source has to wait for the disk before it gives more. */
  get isBehind(): boolean {
    return this.#failure !== undefined || this.#waitingBytes >= MAX_WAITING_BYTES
  }

  /** Resolves once no more waits than may; a write that failed is told here, if not before, then at the end. */
  async catchUp(): Promise<void> {
    await this.#writing
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Begins again from nothing. */
  async reset(): Promise<void> {
    await this.#written()
    await this.#file.truncate(0)
    this.#size = 0
    this.#writtenBytes = 0
    this.#check = checkFor(this.#expected)
  }

  /** Throws `INTEGRITY` unless all bytes are there and the right ones; ask once between resets. */
  verify(where: string): void {
    this.#check?.finish(where)
  }

  /** Has its bytes turned into what is to stand there, once they are verified; nobody can go on with it from then on. */
  async convert(change: (file: FileHandle, size: number) => Promise<number>): Promise<void> {
    await this.#written()
    this.#size = await change(this.#file, this.#size)
  }

  /** Puts it in its place, whole and on the disk. */
  async finish(): Promise<void> {
    await this.#written()
    await this.#file.sync()
    await this.#file.close()
    await rename(this.#path, this.#target)
    releasePart(this.#path)
  }

  /** Leaves it for a later call to go on with, if there is anything in it that one could. */
  async leave(): Promise<void> {
    if (this.#size === 0 || this.#expected === undefined) return this.discard()
    // What cannot be written is fetched again; the failure that ended the read is the one to be told.
    await this.#written().catch(() => undefined)
    await this.#file.close()
    releasePart(this.#path)
  }

  async discard(): Promise<void> {
    await this.#writing
    clearTimeout(this.#timer)
    this.#waiting = []
    await this.#file.close()
    await rm(this.#path, { force: true })
    releasePart(this.#path)
  }

  #writeSoon(): void {
    this.#timer ??= setTimeout(() => this.#startWriting(), WRITE_AFTER_MS).unref()
  }

  #startWriting(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing ??= this.#writeWaiting()
  }

  async #writeWaiting(): Promise<void> {
    try {
      do {
        const chunks = this.#waiting
        const sizeBytes = this.#waitingBytes
        this.#waiting = []
        this.#waitingBytes = 0
        await writeAll(this.#file, chunks, this.#writtenBytes)
        this.#writtenBytes += sizeBytes
      } while (this.#waitingBytes >= WRITE_BYTES)
    } catch (error) {
      this.#failure = error
    } finally {
      this.#writing = undefined
      if (this.#waiting.length > 0 && this.#failure === undefined) this.#writeSoon()
    }
  }

  /** Writes all that waits. */
  async #written(): Promise<void> {
    await this.#writing
    if (this.#failure === undefined && this.#waiting.length > 0) this.#startWriting()
    await this.#writing
    clearTimeout(this.#timer)
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Takes in what is there; more than there can be is nothing of ours. */
  async #readBack(): Promise<void> {
    const { size } = await this.#file.stat()
    if (size > (this.#expected?.size ?? 0)) return this.reset()
    const buffer = Buffer.allocUnsafe(READ_BYTES)
    for (;;) {
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.#size)
      if (bytesRead === 0) return
      this.#check?.update(buffer.subarray(0, bytesRead))
      this.#size += bytesRead
      this.#writtenBytes += bytesRead
    }
  }
}

function checkFor(expected: BodyFacts | undefined): DigestCheck | undefined {
  return expected === undefined ? undefined : new DigestCheck(expected)
}
