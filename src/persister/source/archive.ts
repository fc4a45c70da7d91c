import { open } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { type Header, type Pack, pack } from 'tar-stream'
import { mapFsError, systemCode } from '../fs-error.js'
import { CHUNK_BYTES } from '../spool/stage.js'
import type { Source } from './source.js'
import { type WalkEntry, walk } from './walk.js'

const PAD = Buffer.alloc(64 * 1024)
const MAX_WARNINGS = 50

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

/** Writes exactly the size the entry's header promised: a file that shrank is filled up, one that grew is cut. */
async function addFile(archive: Pack, entry: WalkEntry, warn: (line: string) => void): Promise<void> {
  let handle: Awaited<ReturnType<typeof open>>
  try {
    handle = await open(entry.path, 'r')
  } catch (error) {
    warn(
      `${entry.name}: left out (${systemCode(error) === 'ENOENT' ? 'vanished' : (systemCode(error) ?? 'unreadable')})`,
    )
    return
  }
  try {
    const sizeBytes = entry.stats.size
    if (sizeBytes <= CHUNK_BYTES) {
      const bytes = Buffer.alloc(sizeBytes)
      const { bytesRead } = await readFully(handle, bytes)
      if (bytesRead < sizeBytes) warn(`${entry.name}: changed while being read`)
      await new Promise<void>((done, fail) => {
        archive.entry(header(entry, { type: 'file' }), bytes, (error) => (error ? fail(error) : done()))
      })
    } else {
      await addBigFile(archive, entry, handle, warn)
    }
    if ((await handle.stat()).mtimeMs !== entry.stats.mtimeMs) warn(`${entry.name}: changed while being read`)
  } finally {
    await handle.close()
  }
}

async function readFully(
  handle: Awaited<ReturnType<typeof open>>,
  bytes: Buffer,
): Promise<{ bytesRead: number }> {
  let done = 0
  while (done < bytes.length) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return { bytesRead: done }
}

async function addBigFile(
  archive: Pack,
  entry: WalkEntry,
  handle: Awaited<ReturnType<typeof open>>,
  warn: (line: string) => void,
): Promise<void> {
  const sizeBytes = entry.stats.size
  const ended = new Promise<void>((done, fail) => {
    const sink = archive.entry(header(entry, { type: 'file', size: sizeBytes }), (error) =>
      error ? fail(error) : done(),
    )
    const feed = async (): Promise<void> => {
      let left = sizeBytes
      const put = async (chunk: Uint8Array): Promise<void> => {
        left -= chunk.length
        if (!sink.write(chunk)) await new Promise<void>((drained) => sink.once('drain', () => drained()))
      }
      const stream = handle.createReadStream({
        autoClose: false,
        highWaterMark: CHUNK_BYTES,
        end: sizeBytes - 1,
      })
      for await (const chunk of stream as AsyncIterable<Buffer>) await put(chunk)
      if (left > 0) warn(`${entry.name}: shrank while being read; the rest is zeros`)
      while (left > 0) await put(PAD.subarray(0, Math.min(left, PAD.length)))
      sink.end(undefined)
    }
    feed().catch((error: unknown) => {
      sink.destroy(error instanceof Error ? error : new Error(String(error)))
    })
  })
  await ended
}

async function fillArchive(
  archive: Pack,
  path: string,
  name: string,
  warn: (line: string) => void,
): Promise<void> {
  for await (const entry of walk(Buffer.from(path), name, warn)) {
    if (entry.kind === 'directory')
      await addEmpty(archive, entry, { name: `${entry.name}/`, type: 'directory' })
    else if (entry.kind === 'symlink') {
      await addEmpty(archive, entry, { type: 'symlink', linkname: entry.linkTarget ?? '' })
    } else await addFile(archive, entry, warn)
  }
  archive.finalize()
}

/** One packing of a directory, as gzipped chunks. */
async function* packDirectory(
  path: string,
  name: string,
  warn: (line: string) => void,
): AsyncGenerator<Uint8Array> {
  const archive = pack()
  const gzip = createGzip({ chunkSize: 256 * 1024 })
  const packed = pipeline(archive, gzip)
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
