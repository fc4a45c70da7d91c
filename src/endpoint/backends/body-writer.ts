import { createHash } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { writeAll } from '../../streams/write-all.js'
import { FileDigest } from './file-digest.js'
import { digestFile } from './files.js'

/** Bytes that may wait for the disk while more are taken; bounds the memory of one upload. */
const MAX_WAITING_BYTES = 4 << 20
/** How often the disk is told to get on with it, so that little is left to sync at the end. */
const SYNC_EVERY_BYTES = 16 << 20
/** Larger bodies are digested on a thread of their own, which starts over: starting it costs about as much as digesting so many bytes. */
const THREAD_FROM_BYTES = 16 << 20

/** Writes a body to a file and digests it, with disk and digest at work at once; what piles up is written in one go. */
export class BodyWriter {
  readonly #path: string
  readonly #handle: FileHandle
  readonly #durable: boolean
  readonly #hash = createHash('sha256')
  #digest: FileDigest | undefined
  #sizeBytes = 0
  #writtenBytes = 0
  #queue: Uint8Array[] = []
  #turn: Promise<void> | undefined
  #syncing: Promise<void> | undefined
  #syncedBytes = 0

  /**
   * The handle, of the file at the path, stays the caller's to close, after {@link settle}. `durable` says whether the body must
   * survive a crash of the machine.
   */
  constructor(path: string, handle: FileHandle, durable: boolean) {
    this.#path = path
    this.#handle = handle
    this.#durable = durable
  }

  /** What was taken so far. */
  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** What the file has of it. */
  get writtenBytes(): number {
    return this.#writtenBytes
  }

  /** Takes the next bytes, which must not change afterwards; resolves when there is room for more. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#queue.push(chunk)
    this.#sizeBytes += chunk.length
    this.#startTurn()
    const crosses = this.#sizeBytes >= THREAD_FROM_BYTES && this.#sizeBytes - chunk.length < THREAD_FROM_BYTES
    if (crosses) this.#digest = FileDigest.start(this.#path)
    if (this.#digest === undefined) this.#hash.update(chunk)
    while (this.#sizeBytes - this.#writtenBytes > MAX_WAITING_BYTES) await this.#nextTurn()
  }

  /** Writes everything that is left, synced where it is to be durable, and gives the digest, 64 hex digits. */
  async finish(): Promise<string> {
    while (this.#writtenBytes < this.#sizeBytes) await this.#nextTurn()
    const [digest] = await Promise.all([this.#finishDigest(), this.#finishSync()])
    return digest
  }

  async #finishSync(): Promise<void> {
    await this.#syncing
    if (this.#durable) await this.#handle.sync()
  }

  async #finishDigest(): Promise<string> {
    if (this.#digest === undefined) return this.#hash.digest('hex')
    return (await this.#digest.finish(this.#sizeBytes)) ?? digestFile(this.#path)
  }

  /** Waits until nothing is under way any more, whatever became of it. */
  async settle(): Promise<void> {
    this.#queue = []
    this.#digest?.abandon()
    await Promise.allSettled([this.#turn, this.#syncing])
  }

  async #nextTurn(): Promise<void> {
    this.#startTurn()
    await this.#turn
  }

  #startTurn(): void {
    if (this.#turn !== undefined || this.#queue.length === 0) return
    const turn = this.#writeQueue()
    this.#turn = turn
    turn.then(
      () => {
        this.#turn = undefined
        this.#startTurn()
      },
      // A turn that failed stays: whoever waits for the next one is told.
      () => undefined,
    )
  }

  async #writeQueue(): Promise<void> {
    const chunks = this.#queue
    this.#queue = []
    await writeAll(this.#handle, chunks, this.#writtenBytes)
    this.#writtenBytes += chunks.reduce((sum, { length }) => sum + length, 0)
    this.#digest?.advance(this.#writtenBytes)
    if (this.#durable) this.#syncAhead()
  }

  #syncAhead(): void {
    if (this.#syncing !== undefined || this.#writtenBytes - this.#syncedBytes < SYNC_EVERY_BYTES) return
    this.#syncedBytes = this.#writtenBytes
    const syncing = this.#handle.datasync()
    this.#syncing = syncing
    syncing.then(
      () => {
        this.#syncing = undefined
      },
      // A sync that failed stays: the end asks for it.
      () => undefined,
    )
  }
}
