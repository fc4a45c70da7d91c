import { createHash, type Hash } from 'node:crypto'
import { closeSync } from 'node:fs'
import type { ConductorError } from '../../errors.js'
import { createFile, readAt, removeFile, sync, writeAt } from '../../files/disk.js'
import { temporaryPath } from '../../files/durable-file.js'
import { mapFsError } from '../fs-error.js'

/** Read and write unit; smaller ones cost twice the time for big files. */
export const CHUNK_BYTES = 1 << 20
const SMALLEST_READ_BYTES = 16 * 1024
/** How much is written before the disk is asked to start on it, so that the last sync is short. */
const EARLY_SYNC_BYTES = 64 << 20

/** A whole body on disk, with what is known of its bytes. */
export interface Body {
  readonly path: string
  readonly sizeBytes: number
  /** 64 lower-case hex digits. */
  readonly sha256: string
}

/** A body that the disk may still be at work on. */
export interface Staged extends Body {
  /** Resolves once a crash of the machine leaves the bytes; rejects with {@link SpoolFailure}. Need not be awaited. */
  readonly synced: Promise<void>
}

/** An open regular file, to be read from its beginning to its end, wherever that is by then. */
export interface OpenFile {
  /** Descriptor. */
  readonly file: number
  /** As it was when it was opened. */
  readonly sizeBytes: number
}

/** Bytes to be stored: a file, or chunks as they come. */
export type BodySource = OpenFile | { readonly chunks: AsyncIterable<Uint8Array> }

class Stage {
  readonly #descriptor: number
  readonly #path: string
  readonly #folder: string
  readonly #hash: Hash = createHash('sha256')
  #sizeBytes = 0
  #unsyncedBytes = 0
  #syncing: Promise<void> | undefined

  constructor(path: string, folder: string) {
    this.#path = path
    this.#folder = folder
    try {
      this.#descriptor = createFile(path)
    } catch (error) {
      throw new SpoolFailure(error, folder)
    }
  }

  async add(chunk: Uint8Array): Promise<void> {
    try {
      const written = writeAt(this.#descriptor, chunk, this.#sizeBytes)
      // Hashing runs on this thread while the write is on its way on another.
      this.#hash.update(chunk)
      await written
      this.#sizeBytes += chunk.length
      this.#unsyncedBytes += chunk.length
      if (this.#unsyncedBytes >= EARLY_SYNC_BYTES) {
        await this.#syncing
        this.#unsyncedBytes = 0
        this.#syncing = sync(this.#descriptor, 'data')
        // Awaited before the next one and at the end; this only keeps Node from calling it unhandled until then.
        this.#syncing.catch(() => {})
      }
    } catch (error) {
      throw new SpoolFailure(error, this.#folder)
    }
  }

  /** Nothing is added any more; the file is closed once it is synced. */
  finish(): Staged {
    const synced = this.#sync()
    synced.catch(() => {})
    return { path: this.#path, sizeBytes: this.#sizeBytes, sha256: this.#hash.digest('hex'), synced }
  }

  async #sync(): Promise<void> {
    try {
      await this.#syncing
      await sync(this.#descriptor)
    } catch (error) {
      throw new SpoolFailure(error, this.#folder)
    } finally {
      closeSync(this.#descriptor)
    }
  }

  /** Instead of {@link finish}. */
  async giveUp(): Promise<void> {
    await this.#syncing?.catch(() => {})
    closeSync(this.#descriptor)
    removeFile(this.#path)
  }
}

/** Room for a file's next bytes; a small file's ends in the first. */
function makeBuffer({ sizeBytes }: OpenFile): Buffer {
  return Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, Math.max(SMALLEST_READ_BYTES, sizeBytes + 1)))
}

/** Hands over a file piece by piece, and reads the next piece while one is being taken. */
async function readThrough(source: OpenFile, take: (piece: Buffer) => Promise<void>): Promise<void> {
  let current = makeBuffer(source)
  let spare: Buffer | undefined
  let position = await readAt(source.file, current, 0)
  for (let bytesRead = position; bytesRead > 0; position += bytesRead) {
    spare ??= makeBuffer(source)
    // Both are over before anything is thrown: the descriptors are closed then, and may be another file's soon.
    const [taken, ahead] = await Promise.allSettled([
      take(current.subarray(0, bytesRead)),
      readAt(source.file, spare, position),
    ])
    if (taken.status === 'rejected') throw taken.reason
    if (ahead.status === 'rejected') throw ahead.reason
    bytesRead = ahead.value
    ;[current, spare] = [spare, current]
  }
}

async function fill(stage: Stage, source: BodySource): Promise<void> {
  if ('file' in source) return await readThrough(source, (piece) => stage.add(piece))
  for await (const chunk of source.chunks) await stage.add(chunk)
}

/** The spool itself cannot be written, whatever the source; `cause` says why. */
export class SpoolFailure extends Error {
  override readonly cause: ConductorError

  constructor(error: unknown, folder: string) {
    const cause = mapFsError(error, `cannot write ${folder}`)
    super(cause.message, { cause })
    this.cause = cause
  }
}

/**
 * Copies a body into an unfinished file of the folder, hashing it on the way; the caller owns that file. Rejects with
 * {@link SpoolFailure} when the folder is at fault, and with the source's own error when that is.
 */
export async function stageBody(folder: string, source: BodySource): Promise<Staged> {
  const stage = new Stage(temporaryPath(folder), folder)
  try {
    await fill(stage, source)
  } catch (error) {
    await stage.giveUp()
    if (error instanceof SpoolFailure) throw error
    throw mapFsError(error, 'cannot read what is to be stored')
  }
  return stage.finish()
}

/** Digest of a file's bytes, read from disk; the open file is left to its owner. */
export async function digestFile(source: OpenFile): Promise<{ sizeBytes: number; sha256: string }> {
  const hash = createHash('sha256')
  let sizeBytes = 0
  await readThrough(source, async (piece) => {
    hash.update(piece)
    sizeBytes += piece.length
  })
  return { sizeBytes, sha256: hash.digest('hex') }
}
