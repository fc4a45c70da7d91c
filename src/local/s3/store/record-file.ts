import { createHash, randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

// A file is body, record as JSON, length of the record, mark: one rename makes body and record visible together.
const mark = Buffer.from('S3LOCAL1')
const footerBytes = 4 + mark.length
const bufferBytes = 1 << 20

/** An open file of the store; the caller closes it. */
export interface RecordFile<R> {
  readonly handle: FileHandle
  readonly record: R
  readonly sizeBytes: number
}

/** Writes a body to a temporary file, which {@link RecordWriter.publish} makes visible whole. */
export class RecordWriter {
  readonly #handle: FileHandle
  readonly #path: string
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #writing: Promise<unknown> = Promise.resolve()

  private constructor(handle: FileHandle, path: string) {
    this.#handle = handle
    this.#path = path
  }

  /** Starts a file in a folder for temporary ones, on the same file system as its later place. */
  static async create(folder: string): Promise<RecordWriter> {
    const path = join(folder, randomUUID())
    return new RecordWriter(await open(path, 'wx', 0o600), path)
  }

  /** Takes ownership of the chunk. Resolves when there is room for the next. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#waiting.push(chunk)
    this.#waitingBytes += chunk.length
    if (this.#waitingBytes >= bufferBytes) await this.#flush()
  }

  /** Writes all of a body. */
  async writeAll(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of chunks) await this.write(chunk)
  }

  /** Ends the file with its record and syncs it to the disk. Still invisible. */
  async finish(record: unknown): Promise<void> {
    const json = Buffer.from(JSON.stringify(record))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(json.length)
    this.#waiting.push(json, length, mark)
    await this.#flush()
    await this.#writing
    await this.#handle.datasync()
    await this.#handle.close()
  }

  /** Puts the finished file in its place, replacing what was there, and syncs the folder. */
  async publish(path: string): Promise<void> {
    const folder = dirname(path)
    if ((await mkdir(folder, { recursive: true })) !== undefined) await syncFolder(dirname(folder))
    await rename(this.#path, path)
    await syncFolder(folder)
  }

  /** Throws the file away. Harmless after {@link publish}. */
  async discard(): Promise<void> {
    // A write that failed has been reported by whoever waited for it.
    await this.#writing.catch(() => undefined)
    await this.#handle.close()
    await rm(this.#path, { force: true })
  }

  /** Hands what waits to the file once the write before is done: one write is under way while the next fills. */
  async #flush(): Promise<void> {
    const buffers = this.#waiting
    this.#waiting = []
    this.#waitingBytes = 0
    await this.#writing
    this.#writing = this.#writeFully(buffers)
    // Observed by the next flush; without this a failure in between would count as unhandled.
    this.#writing.catch(() => undefined)
  }

  async #writeFully(buffers: Uint8Array[]): Promise<void> {
    let { bytesWritten } = await this.#handle.writev(buffers)
    // A short write is rare, and the rest is then written piece by piece.
    for (const buffer of buffers) {
      if (bytesWritten >= buffer.length) {
        bytesWritten -= buffer.length
        continue
      }
      let rest = buffer.subarray(bytesWritten)
      bytesWritten = 0
      while (rest.length > 0) rest = rest.subarray((await this.#handle.write(rest)).bytesWritten)
    }
  }
}

/** Opens a published file; undefined when there is none. Throws when it is not whole. */
export async function openRecord<R>(path: string): Promise<RecordFile<R> | undefined> {
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (handle === undefined) return undefined
  try {
    const { size } = await handle.stat()
    const tail = await readAt(handle, Math.max(0, size - 4096), Math.min(size, 4096))
    const recordBytes = tail.length < footerBytes ? 0 : tail.readUInt32BE(tail.length - footerBytes)
    const sizeBytes = size - footerBytes - recordBytes
    if (sizeBytes < 0 || !tail.subarray(-mark.length).equals(mark)) throw new Error(`${path} is damaged`)
    const json =
      tail.length >= recordBytes + footerBytes
        ? tail.subarray(tail.length - footerBytes - recordBytes, tail.length - footerBytes)
        : await readAt(handle, sizeBytes, recordBytes)
    return { handle, record: JSON.parse(json.toString('utf8')) as R, sizeBytes }
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Yields a range of an open file in large pieces. */
export async function* readRange(
  handle: FileHandle,
  start: number,
  sizeBytes: number,
): AsyncGenerator<Buffer, void, undefined> {
  let position = start
  const end = start + sizeBytes
  while (position < end) {
    const buffer = Buffer.allocUnsafe(Math.min(bufferBytes, end - position))
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position)
    if (bytesRead === 0) throw new Error('file became shorter while it was read')
    position += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
}

/** Where a key's file lies: a digest, since keys may hold anything. */
export function pathOfKey(folder: string, key: string): string {
  const digest = createHash('sha256').update(key).digest('hex')
  return join(folder, digest.slice(0, 2), digest.slice(2))
}

/** Makes renames and removals in a folder survive a power cut. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function readAt(handle: FileHandle, position: number, sizeBytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(sizeBytes)
  const { bytesRead } = await handle.read(buffer, 0, sizeBytes, position)
  return buffer.subarray(0, bytesRead)
}
