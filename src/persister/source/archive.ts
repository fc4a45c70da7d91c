import { createGzip, type Gzip } from 'node:zlib'
import { mapFsError } from '../fs-error.js'
import type { Source } from './source.js'
import { packTar } from './tar.js'

const MAX_WARNINGS = 50
const CHUNK_BYTES = 256 * 1024

/** Compresses pieces while the next is being made: one waits in the compressor, never more. */
async function feed(gzip: Gzip, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  let settle = (_error?: Error | null): void => {}
  // A reader that stops early leaves the compressor without room, and its answer would never come.
  gzip.once('close', () => settle(new Error('packing was given up')))
  let taken: Promise<void> = Promise.resolve()
  for await (const piece of pieces) {
    await taken
    taken = new Promise((done, fail) => {
      settle = (error) => (error ? fail(error) : done())
      gzip.write(piece, settle)
    })
    // Awaited before the next piece and at the end; until then a failure must not count as unhandled.
    taken.catch(() => {})
  }
  await taken
  gzip.end()
}

/** One packing of a directory, as gzipped chunks. */
async function* packDirectory(
  path: string,
  name: string,
  warn: (line: string) => void,
): AsyncGenerator<Uint8Array> {
  const gzip = createGzip({ chunkSize: CHUNK_BYTES })
  const fed = feed(gzip, packTar(path, name, warn)).catch((error: unknown) => {
    gzip.destroy()
    throw mapFsError(error, `cannot archive ${path}`)
  })
  fed.catch(() => {})
  try {
    for await (const chunk of gzip) yield chunk
  } finally {
    gzip.destroy()
    // The walk's own error says more than that of the compressor it broke.
    await fed
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
