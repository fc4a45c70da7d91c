import { constants } from 'node:fs'
import { type FileHandle, lstat, open, readdir, readFile, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { syncFolder } from '../files/durable-file.js'
import { isAlive, parseOwner } from '../files/owner.js'
import { RECORD_SUFFIX } from '../protocol/key.js'
import { MAX_RECORD_BYTES } from '../protocol/parse.js'
import { SPOOL_FOLDERS } from '../protocol/spool-layout.js'
import { toWebStream } from '../streams/web-stream.js'
import type { OpenOptions } from './result-store.js'
import { beingDelivered, type SpoolFiles, type SpoolRecordFile } from './spool-store.js'

/** A spool in a folder of this machine: a copied-out one, or a mounted volume. Links are never followed, since a worker may have planted them. */
export class DirectoryFiles implements SpoolFiles {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  async *readRecords(taskId: string, { signal }: CallOptions = {}): AsyncGenerator<SpoolRecordFile> {
    let names: string[]
    try {
      names = await readdir(join(this.#folder, taskId))
    } catch (error) {
      if (isAbsent(error)) return
      throw mapFileError(error, `read ${taskId}`)
    }
    const present = new Set(names)
    for (const name of names) {
      signal?.throwIfAborted()
      if (!name.endsWith(RECORD_SUFFIX) || name.startsWith('.')) continue
      const fileName = name.slice(0, -RECORD_SUFFIX.length)
      if (!present.has(fileName)) continue
      yield { fileName, text: await this.readRecord(taskId, fileName) }
    }
  }

  async readRecord(taskId: string, fileName: string): Promise<string | undefined> {
    const handle = await this.#openFile(taskId, `${fileName}${RECORD_SUFFIX}`)
    if (handle === undefined) return undefined
    try {
      const { size } = await handle.stat()
      return size > MAX_RECORD_BYTES ? undefined : await handle.readFile('utf8')
    } finally {
      await handle.close()
    }
  }

  async open(
    taskId: string,
    fileName: string,
    { signal, offset = 0 }: OpenOptions = {},
  ): Promise<ReadableStream<Uint8Array>> {
    const handle = await this.#openFile(taskId, fileName)
    if (handle === undefined) throw new ConductorError('NOT_FOUND', `no file ${taskId}/${fileName}`)
    const source = handle.createReadStream({ start: offset, highWaterMark: 1 << 20, signal })
    return toWebStream(source, (error) =>
      signal?.aborted ? signal.reason : mapFileError(error, `read ${taskId}/${fileName}`),
    )
  }

  async delete(taskId: string, fileName: string, { signal }: CallOptions = {}): Promise<boolean> {
    signal?.throwIfAborted()
    if (!(await this.#isFolder(taskId))) return false
    const folder = join(this.#folder, taskId)
    const hasMarkers = await this.#isFolder(join(taskId, SPOOL_FOLDERS.pending))
    const marker = join(folder, SPOOL_FOLDERS.pending, fileName)
    const doing = `delete ${taskId}/${fileName}`
    try {
      if (hasMarkers && (await isHeld(marker))) throw beingDelivered(doing)
      const hadRecord = await removeFile(join(folder, `${fileName}${RECORD_SUFFIX}`))
      // On the disk before the bytes are gone, whatever becomes of this machine.
      await syncFolder(folder)
      const hadBytes = await removeFile(join(folder, fileName))
      if (hasMarkers) await removeFile(marker)
      return hadRecord || hadBytes
    } catch (error) {
      throw isConductorError(error) ? error : mapFileError(error, doing)
    }
  }

  /** A folder that is a link would lead out just as a file that is one. */
  async #isFolder(path: string): Promise<boolean> {
    try {
      return (await lstat(join(this.#folder, path))).isDirectory()
    } catch (error) {
      if (isAbsent(error)) return false
      throw mapFileError(error, `open ${path}`)
    }
  }

  async #openFile(taskId: string, fileName: string): Promise<FileHandle | undefined> {
    const doing = `open ${taskId}/${fileName}`
    try {
      if (!(await this.#isFolder(taskId))) return undefined
      const handle = await open(
        join(this.#folder, taskId, fileName),
        // A FIFO in place of a file would otherwise block for ever.
        constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
      )
      if ((await handle.stat()).isFile()) return handle
      await handle.close()
      return undefined
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw mapFileError(error, doing)
    }
  }
}

async function removeFile(path: string): Promise<boolean> {
  try {
    await unlink(path)
    return true
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
}

/** Whether a living process has taken it on itself to deliver what the marker stands for. */
async function isHeld(marker: string): Promise<boolean> {
  try {
    const stat = await lstat(marker)
    if (!stat.isFile()) return false
    const { mtimeMs } = stat
    const owner = parseOwner(await readFile(marker, 'utf8'))
    return owner !== undefined && isAlive(owner, mtimeMs)
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
}

// ELOOP is what O_NOFOLLOW says of a link, ENXIO what a socket is answered with: no results of ours.
function isAbsent(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes((error as NodeJS.ErrnoException).code ?? '')
}

function mapFileError(error: unknown, doing: string): ConductorError {
  const { code } = error as NodeJS.ErrnoException
  const kind = code === 'EACCES' || code === 'EPERM' ? 'ACCESS_DENIED' : 'UNAVAILABLE'
  return new ConductorError(kind, `${doing} failed: ${code ?? String(error)}`, { cause: error })
}
