import { isUtf8 } from 'node:buffer'
import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { lstat, mkdir, readdir, rename, rm, symlink, utimes } from 'node:fs/promises'
import { dirname, join, posix, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { type Header, extract as untar } from 'tar-stream'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { LOCAL_CODES, LocalError } from './local-error.js'

/** Bounds on what an archive may unpack to; a sandbox packed it. */
export interface ExtractLimits {
  /** Bytes of all files together. */
  readonly maxBytes: number
  /** Files, folders and links together. */
  readonly maxEntries: number
}

/** Told of the folder's end under its first name, at this path: that it is about to get its own, or has not got it after all. */
export interface NamingNotes {
  add(stagingPath: string): Promise<void>
  retract(stagingPath: string): Promise<void>
}

/** How an archive is unpacked. */
export interface ExtractSpec extends ExtractLimits, CallOptions {
  readonly notes?: NamingNotes | undefined
}

/** The default bounds for an archive of a size, in bytes: generous to what compresses well, closed to bombs. */
export function extractLimits(archiveBytes: number): ExtractLimits {
  return { maxBytes: 256 * 1024 ** 2 + archiveBytes * 200, maxEntries: 1_000_000 }
}

/** The package's types do not know the option. */
const NAMES_AS_BYTES: object = { filenameEncoding: 'latin1' }

/** What was unpacked. */
export interface Extracted {
  readonly path: string
  readonly files: number
  readonly bytes: number
}

/**
 * Unpacks a tar.gz into a folder that appears only when everything is in it; a place that is taken is refused with `EXISTS` before
 * anything is read. Entries that would reach outside it, devices, and more than the limits are refused with `INTEGRITY` or
 * `TOO_LARGE`, and nothing stays behind.
 */
export async function extractArchive(
  chunks: AsyncIterable<Uint8Array>,
  folder: string,
  { signal, notes, ...limits }: ExtractSpec,
): Promise<Extracted> {
  const target = resolve(folder)
  const staging = join(dirname(target), `.${randomBytes(8).toString('hex')}.part`)
  const unpacking = new Unpacking(staging, limits)
  await assertFree(target)
  let isNoted = false
  try {
    await mkdir(dirname(target), { recursive: true })
    await mkdir(staging)
    const entries = untar(NAMES_AS_BYTES)
    const source = Readable.from(chunks, { objectMode: false })
    const feeding = pipeline(source, createGunzip(), entries, signal === undefined ? {} : { signal })
    // Reading the entries fails with the same error.
    feeding.catch(() => {})
    for await (const entry of entries) await unpacking.add(entry.header, entry as unknown as EntryBody)
    await feeding
    await unpacking.finish()
    isNoted = notes !== undefined
    await notes?.add(staging)
    await rename(staging, target)
    return { path: target, files: unpacking.files, bytes: unpacking.bytes }
  } catch (error) {
    if (isNoted) await notes?.retract(staging)
    await rm(staging, { recursive: true, force: true })
    signal?.throwIfAborted()
    throw mapExtractError(error, target)
  }
}

/** Rejects with `EXISTS`, saying what is wrong with it, unless nothing is there or a folder with nothing in it, which can be replaced. */
export async function assertFree(target: string, wrong = 'exists and is not an empty folder'): Promise<void> {
  const there = await lstat(target).catch((error: NodeJS.ErrnoException) => {
    const { code = '' } = error
    if (code === 'ENOENT') return undefined
    throw new LocalError(LOCAL_CODES[code] ?? 'INVALID_OPTION', `cannot unpack to ${target}: ${code}`, {
      cause: error,
    })
  })
  if (there === undefined) return
  const isEmpty = there.isDirectory() && (await readdir(target)).length === 0
  if (!isEmpty) throw new LocalError('EXISTS', `${target} ${wrong}`)
}

/** What tar-stream yields is a stream of another make, of which this is used. */
interface EntryBody extends AsyncIterable<Buffer> {
  resume(): void
}

class Unpacking {
  files = 0
  bytes = 0
  #entries = 0
  readonly #root: string
  readonly #limits: ExtractLimits
  /** Made last: nothing is ever written through a link. */
  readonly #links = new Map<string, string>()
  readonly #times: { path: string; mtime: Date }[] = []

  constructor(root: string, limits: ExtractLimits) {
    this.#root = root
    this.#limits = limits
  }

  async add(header: Header, body: EntryBody): Promise<void> {
    this.#entries += 1
    if (this.#entries > this.#limits.maxEntries) {
      throw new ConductorError('TOO_LARGE', `the archive has more than ${this.#limits.maxEntries} entries`)
    }
    const path = safePath(textOf(header, 'name', 'path'))
    if (isSparse(header))
      throw new ConductorError('INTEGRITY', `the archive holds a sparse file, ${show(path)}`)
    if (header.type === 'directory') {
      await mkdir(join(this.#root, path), { recursive: true })
      if (path !== '.') this.#keepTime(path, header)
      body.resume()
    } else if (header.type === 'file' || header.type === 'contiguous-file') {
      await this.#writeFile(path, header, body)
    } else if (header.type === 'symlink') {
      this.#links.set(path, safeTarget(path, textOf(header, 'linkname', 'linkpath')))
      body.resume()
    } else {
      throw new ConductorError('INTEGRITY', `the archive holds a ${header.type}, ${show(header.name)}`)
    }
  }

  async finish(): Promise<void> {
    for (const [path, target] of this.#links) {
      for (let above = posix.dirname(path); above !== '.'; above = posix.dirname(above)) {
        if (this.#links.has(above)) throw leadsOutside(path, target)
      }
      await mkdir(dirname(join(this.#root, path)), { recursive: true })
      await symlink(target, join(this.#root, path))
    }
    // Deepest last in, first out: writing into a folder changes its own time.
    for (const { path, mtime } of this.#times.reverse()) await utimes(join(this.#root, path), mtime, mtime)
  }

  async #writeFile(path: string, header: Header, body: EntryBody): Promise<void> {
    const { maxBytes } = this.#limits
    await mkdir(dirname(join(this.#root, path)), { recursive: true })
    const measured = async function* (this: Unpacking): AsyncGenerator<Buffer> {
      for await (const chunk of body) {
        this.bytes += chunk.length
        if (this.bytes > maxBytes) {
          throw new ConductorError('TOO_LARGE', `the archive unpacks to more than ${maxBytes} bytes`)
        }
        yield chunk
      }
    }
    // Permissions without setuid, setgid and sticky; `wx` refuses an entry that stands in the archive twice.
    const mode = (header.mode ?? 0o644) & 0o777
    await pipeline(measured.call(this), createWriteStream(join(this.#root, path), { flags: 'wx', mode }))
    this.files += 1
    this.#keepTime(path, header)
  }

  #keepTime(path: string, { mtime }: Header): void {
    if (mtime !== undefined && !Number.isNaN(mtime.getTime())) this.#times.push({ path, mtime })
  }
}

/**
 * A name as text. Archives hold bytes, here one in each character, unless an extended header has it as text; of names that are
 * no UTF-8, bytes beyond ASCII become `%XX`, so that no two become one.
 */
function textOf(header: Header, field: 'name' | 'linkname', extended: 'path' | 'linkpath'): string {
  const found = header[field] ?? ''
  if (Object.hasOwn(header.pax ?? {}, extended)) return found
  const bytes = Buffer.from(found, 'latin1')
  if (isUtf8(bytes)) return bytes.toString('utf8')
  return found.replace(/[\x80-\xff]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`)
}

/** Whether an entry is under a made-up name and has a map of its holes before its bytes: https://www.gnu.org/software/tar/manual/html_node/PAX-1.html */
function isSparse({ pax }: Header): boolean {
  return Object.keys(pax ?? {}).some((name) => name.startsWith('GNU.sparse.'))
}

/** A path below the root, or `INTEGRITY`. */
function safePath(name: string): string {
  if (name.includes('\0') || name.startsWith('/') || name.split('/').includes('..')) {
    throw new ConductorError('INTEGRITY', `the archive reaches outside its folder: ${show(name)}`)
  }
  return posix.normalize(name).replace(/\/$/, '') || '.'
}

/** A link's target as it stands, provided that it leads to a place below the root. */
function safeTarget(path: string, target: string): string {
  const lands = posix.join(posix.dirname(path), target)
  const outside = lands === '..' || lands.startsWith('../') || target.startsWith('/')
  // Upwards only at the start: after the name of another link, `..` would lead who knows where.
  const steps = target.split('/').filter((step) => step !== '' && step !== '.')
  const down = steps.findIndex((step) => step !== '..')
  const turnsUp = down >= 0 && steps.lastIndexOf('..') > down
  if (target === '' || target.includes('\0') || outside || turnsUp) throw leadsOutside(path, target)
  return target
}

function leadsOutside(path: string, target: string): ConductorError {
  return new ConductorError(
    'INTEGRITY',
    `a link in the archive leads outside: ${show(path)} -> ${show(target)}`,
  )
}

function show(name: string): string {
  return JSON.stringify(name.slice(0, 200))
}

function mapExtractError(error: unknown, target: string): unknown {
  if (isConductorError(error) || !(error instanceof Error)) return error
  const { code = '', syscall } = error as NodeJS.ErrnoException
  const taken = ['ENOTEMPTY', 'EEXIST', 'ENOTDIR', 'EBUSY']
  if (syscall === 'rename' && taken.includes(code)) {
    return new LocalError('EXISTS', `${target} exists and is not an empty folder`, { cause: error })
  }
  const kind = syscall === undefined ? undefined : LOCAL_CODES[code]
  if (kind !== undefined) return new LocalError(kind, `cannot unpack to ${target}: ${code}`, { cause: error })
  if (error.name === 'AbortError') return error
  return new ConductorError('INTEGRITY', `the archive cannot be unpacked: ${error.message}`, { cause: error })
}
