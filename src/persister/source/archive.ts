import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { type Header, type Pack, pack } from 'tar-stream'
import { mapFsError } from '../fs-error.js'
import { CHUNK_BYTES } from '../spool/stage.js'
import type { Source } from './source.js'
import { reasonOf, type WalkEntry, walk } from './walk.js'

const PAD = Buffer.alloc(64 * 1024)
const MAX_WARNINGS = 50
const GATHER_BYTES = 256 * 1024

function header(entry: WalkEntry, extra: Partial<Header>): Partial<Header> & Pick<Header, 'name'> {
  return {
    name: entry.name,
    mode: entry.stats.mode & 0o7777,
    // Whole seconds, and nobody's ids: the same tree gives the same bytes wherever it is packed.
    mtime: new Date(Math.floor(entry.stats.mtimeMs / 1000) * 1000),
    uid: 0,
    gid: 0,
    ...extra,
  }
}

function addEmpty(archive: Pack, entry: WalkEntry, extra: Partial<Header>): Promise<void> {
  return new Promise((done, fail) => {
    archive.entry(header(entry, extra), (error) => (error ? fail(error) : done()))
  })
}

/** Adds a file that is read at once; see {@link walk} for why it is not read asynchronously. */
async function addSmallFile(archive: Pack, entry: WalkEntry, warn: (line: string) => void): Promise<void> {
  const bytes = Buffer.alloc(entry.stats.size)
  let changed: boolean
  try {
    const descriptor = openSync(entry.path, 'r')
    try {
      changed = readFully(descriptor, bytes) < bytes.length
      changed ||= fstatSync(descriptor).mtimeMs !== entry.stats.mtimeMs
    } finally {
      closeSync(descriptor)
    }
  } catch (error) {
    warn(`${entry.name}: left out (${reasonOf(error)})`)
    return
  }
  if (changed) warn(`${entry.name}: changed while being read`)
  await new Promise<void>((done, fail) => {
    archive.entry(header(entry, { type: 'file' }), bytes, (error) => (error ? fail(error) : done()))
  })
}

function readFully(descriptor: number, bytes: Buffer): number {
  let done = 0
  while (done < bytes.length) {
    const read = readSync(descriptor, bytes, done, bytes.length - done, done)
    if (read === 0) break
    done += read
  }
  return done
}

/** Adds exactly the size the entry's header promises: a file that shrank is filled up, one that grew is cut. */
async function addBigFile(archive: Pack, entry: WalkEntry, warn: (line: string) => void): Promise<void> {
  let handle: FileHandle
  try {
    handle = await open(entry.path, 'r')
  } catch (error) {
    warn(`${entry.name}: left out (${reasonOf(error)})`)
    return
  }
  try {
    await new Promise<void>((done, fail) => {
      const sink = archive.entry(header(entry, { type: 'file', size: entry.stats.size }), (error) =>
        error ? fail(error) : done(),
      )
      feed(sink, entry, handle, warn).catch((error: unknown) => {
        sink.destroy(error instanceof Error ? error : new Error(String(error)))
      })
    })
    if ((await handle.stat()).mtimeMs !== entry.stats.mtimeMs) warn(`${entry.name}: changed while being read`)
  } finally {
    await handle.close()
  }
}

async function feed(
  sink: ReturnType<Pack['entry']>,
  entry: WalkEntry,
  handle: FileHandle,
  warn: (line: string) => void,
): Promise<void> {
  let left = entry.stats.size
  const put = async (chunk: Uint8Array): Promise<void> => {
    left -= chunk.length
    if (!sink.write(chunk)) await new Promise<void>((drained) => sink.once('drain', () => drained()))
  }
  const range = { autoClose: false, highWaterMark: CHUNK_BYTES, end: entry.stats.size - 1 }
  for await (const chunk of handle.createReadStream(range) as AsyncIterable<Buffer>) await put(chunk)
  if (left > 0) warn(`${entry.name}: shrank while being read; the rest is zeros`)
  while (left > 0) await put(PAD.subarray(0, Math.min(left, PAD.length)))
  sink.end(undefined)
}

async function fillArchive(
  archive: Pack,
  path: string,
  name: string,
  warn: (line: string) => void,
): Promise<void> {
  for (const entry of walk(Buffer.from(path), name, warn)) {
    if (entry.kind === 'directory')
      await addEmpty(archive, entry, { name: `${entry.name}/`, type: 'directory' })
    else if (entry.kind === 'symlink') {
      await addEmpty(archive, entry, { type: 'symlink', linkname: entry.linkTarget ?? '' })
    } else if (entry.stats.size <= CHUNK_BYTES) await addSmallFile(archive, entry, warn)
    else await addBigFile(archive, entry, warn)
  }
  archive.finalize()
}

/** Puts small chunks together: each one that reaches the compressor alone costs a round over another thread. */
class Gather extends Transform {
  #chunks: Uint8Array[] = []
  #sizeBytes = 0

  override _transform(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#chunks.push(chunk)
    this.#sizeBytes += chunk.length
    if (this.#sizeBytes >= GATHER_BYTES) this.#release()
    done()
  }

  override _flush(done: () => void): void {
    this.#release()
    done()
  }

  #release(): void {
    if (this.#sizeBytes > 0) this.push(Buffer.concat(this.#chunks))
    this.#chunks = []
    this.#sizeBytes = 0
  }
}

/** One packing of a directory, as gzipped chunks. */
async function* packDirectory(
  path: string,
  name: string,
  warn: (line: string) => void,
): AsyncGenerator<Uint8Array> {
  const archive = pack()
  const gzip = createGzip({ chunkSize: 256 * 1024 })
  const packed = pipeline(archive, new Gather(), gzip)
  const filled = fillArchive(archive, path, name, warn).catch((error: unknown) => {
    archive.destroy(error instanceof Error ? error : new Error(String(error)))
    throw mapFsError(error, `cannot archive ${path}`)
  })
  // Both are awaited at the end; until then a failure must not count as unhandled.
  packed.catch(() => {})
  filled.catch(() => {})
  try {
    for await (const chunk of gzip) yield chunk
    await packed
  } finally {
    // Without effect after the end; a reader that stopped early leaves the walk waiting for room.
    archive.destroy(new Error('packing was given up'))
    // The walk's own error says more than that of the stream it broke.
    await filled
  }
}

/**
 * A directory as a tar.gz, made as it is read. Names inside start with the directory's own. The same tree always gives the
 * same bytes: entries in byte order, times kept to the second, no owners.
 */
export function archiveDirectory(path: string, name: string): Source {
  let warnings = new Warnings()
  return {
    defaultName: name,
    archive: 'tar.gz',
    fallbackType: 'application/gzip',
    sizeBytes: undefined,
    read: () => {
      warnings = new Warnings()
      return { chunks: packDirectory(path, name, (line) => warnings.add(line)) }
    },
    repeatable: true,
    path: undefined,
    warnings: () => warnings.lines(),
    close: async () => {},
  }
}

/** The first remarks of a walk and the number of the rest: a tree of sockets must not fill the memory. */
class Warnings {
  readonly #first: string[] = []
  #more = 0

  add(line: string): void {
    if (this.#first.length < MAX_WARNINGS) this.#first.push(line)
    else this.#more++
  }

  lines(): string[] {
    return this.#more === 0 ? this.#first : [...this.#first, `and ${this.#more} more remarks like these`]
  }
}
