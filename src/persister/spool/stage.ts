import { createHash, type Hash } from 'node:crypto'
import { type FileHandle, open, rm } from 'node:fs/promises'
import type { ConductorError } from '../../errors.js'
import { mapFsError } from '../fs-error.js'
import { temporaryPath, writeAll } from './durable-file.js'

/** Read and write unit; smaller ones cost twice the time for big files. */
export const CHUNK_BYTES = 1 << 20
/** How much is written before the disk is asked to start on it, so that the last sync is short. */
const EARLY_SYNC_BYTES = 64 << 20

/** A whole body on disk, with what is known of its bytes. */
export interface Body {
  readonly path: string
  readonly sizeBytes: number
  /** 64 lower-case hex digits. */
  readonly sha256: string
}

/** Bytes to be stored: an open file, read from its beginning, or chunks as they come. */
export type BodySource = { readonly file: FileHandle } | { readonly chunks: AsyncIterable<Uint8Array> }

class Stage {
  readonly #handle: FileHandle
  readonly #path: string
  readonly #folder: string
  readonly #hash: Hash = createHash('sha256')
  #sizeBytes = 0
  #unsyncedBytes = 0
  #syncing: Promise<void> | undefined

  private constructor(handle: FileHandle, path: string, folder: string) {
    this.#handle = handle
    this.#path = path
    this.#folder = folder
  }

  static async open(path: string, folder: string): Promise<Stage> {
    try {
      return new Stage(await open(path, 'wx', 0o644), path, folder)
    } catch (error) {
      throw new SpoolFailure(error, folder)
    }
  }

  async add(chunk: Uint8Array): Promise<void> {
    try {
      const written = writeAll(this.#handle, chunk, this.#sizeBytes)
      // Hashing runs on this thread while the write is on its way on another.
      this.#hash.update(chunk)
      await written
      this.#sizeBytes += chunk.length
      this.#unsyncedBytes += chunk.length
      if (this.#unsyncedBytes >= EARLY_SYNC_BYTES) {
        await this.#syncing
        this.#unsyncedBytes = 0
        this.#syncing = this.#handle.datasync()
        // Awaited before the next one and at the end; this only keeps Node from calling it unhandled until then.
        this.#syncing.catch(() => {})
      }
    } catch (error) {
      throw new SpoolFailure(error, this.#folder)
    }
  }

  async finish(): Promise<Body> {
    try {
      await this.#syncing
      await this.#handle.sync()
    } catch (error) {
      throw new SpoolFailure(error, this.#folder)
    }
    return { path: this.#path, sizeBytes: this.#sizeBytes, sha256: this.#hash.digest('hex') }
  }

  async close(): Promise<void> {
    await this.#syncing?.catch(() => {})
    await this.#handle.close()
  }
}

async function fill(stage: Stage, source: BodySource): Promise<void> {
  if ('chunks' in source) {
    for await (const chunk of source.chunks) await stage.add(chunk)
    return
  }
  let [current, next] = [Buffer.allocUnsafeSlow(CHUNK_BYTES), Buffer.allocUnsafeSlow(CHUNK_BYTES)]
  let position = 0
  let { bytesRead } = await source.file.read(current, 0, CHUNK_BYTES, position)
  while (bytesRead > 0) {
    position += bytesRead
    const [, ahead] = await Promise.all([
      stage.add(current.subarray(0, bytesRead)),
      source.file.read(next, 0, CHUNK_BYTES, position),
    ])
    bytesRead = ahead.bytesRead
    ;[current, next] = [next, current]
  }
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
 * Copies a body into an unfinished file of the folder, hashing it on the way, and syncs it; the caller owns that file.
 * Rejects with {@link SpoolFailure} when the folder is at fault, and with the source's own error when that is.
 */
export async function stageBody(folder: string, source: BodySource): Promise<Body> {
  const path = temporaryPath(folder)
  try {
    const stage = await Stage.open(path, folder)
    try {
      await fill(stage, source)
      return await stage.finish()
    } finally {
      await stage.close()
    }
  } catch (error) {
    await rm(path, { force: true })
    if (error instanceof SpoolFailure) throw error
    throw mapFsError(error, 'cannot read what is to be stored')
  }
}

/** Digest of a file's bytes, read from disk; the open file is left to its owner. */
export async function digestFile(file: FileHandle): Promise<{ sizeBytes: number; sha256: string }> {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES)
  let sizeBytes = 0
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, sizeBytes)
    if (bytesRead === 0) return { sizeBytes, sha256: hash.digest('hex') }
    hash.update(buffer.subarray(0, bytesRead))
    sizeBytes += bytesRead
  }
}
