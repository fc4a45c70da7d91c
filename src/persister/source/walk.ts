import { type Dirent, opendirSync } from 'node:fs'
import { systemCode } from '../fs-error.js'

/** One thing in a directory tree, parents before what is in them, each folder in byte order. */
export interface WalkEntry {
  /** Where it is, one character for each byte: file names are bytes and need not be UTF-8. See {@link toPath}. */
  readonly bytes: string
  /** Path inside the archive, without a slash at its end. */
  readonly name: string
  readonly kind: 'file' | 'directory' | 'symlink'
}

const LISTED_AT_ONCE = 1024

/** Why something cannot be read, in a word. */
export function reasonOf(error: unknown): string {
  const code = systemCode(error)
  return code === 'ENOENT' ? 'vanished' : (code ?? 'unreadable')
}

/** A path as the system takes it. */
export function toPath(bytes: string): string | Buffer {
  return isAscii(bytes) ? bytes : Buffer.from(bytes, 'latin1')
}

function isAscii(bytes: string): boolean {
  return Buffer.byteLength(bytes) === bytes.length
}

/** A file name as text; bytes that are not UTF-8 become `%XX`, since an archive's names are text. */
function nameText(bytes: string): { text: string; exact: boolean } {
  if (isAscii(bytes)) return { text: bytes, exact: true }
  const name = Buffer.from(bytes, 'latin1')
  const text = name.toString('utf8')
  if (Buffer.from(text, 'utf8').equals(name)) return { text, exact: true }
  const escaped = Array.from(name, (byte) =>
    byte < 0x80 ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
  ).join('')
  return { text: escaped, exact: false }
}

/** What a folder holds, one character for each byte of a name: the names alone are little even of a hundred thousand files. */
interface Listing {
  readonly names: string[]
  /** Of those that are no regular files. */
  readonly others: Map<string, Dirent>
}

function list(bytes: string): Listing {
  const listing: Listing = { names: [], others: new Map() }
  const folder = opendirSync(toPath(bytes), { encoding: 'latin1', bufferSize: LISTED_AT_ONCE })
  try {
    for (let found = folder.readSync(); found !== null; found = folder.readSync()) {
      listing.names.push(found.name)
      if (!found.isFile()) listing.others.set(found.name, found)
    }
  } finally {
    folder.closeSync()
  }
  // By UTF-16 unit, which here is by byte.
  listing.names.sort()
  return listing
}

/**
 * Walks a directory tree without following links; what cannot be read is reported to `warn` and left out. It asks the system
 * directly: for thousands of small files the detour over other threads takes ten times as long.
 */
export function* walk(bytes: string, name: string, warn: (line: string) => void): Generator<WalkEntry> {
  yield { bytes, name, kind: 'directory' }
  let listing: Listing
  try {
    listing = list(bytes)
  } catch (error) {
    warn(`${name}: left out its contents (${reasonOf(error)})`)
    return
  }
  for (const child of listing.names) {
    const { text, exact } = nameText(child)
    const entry = { bytes: `${bytes}/${child}`, name: `${name}/${text}` }
    if (!exact) warn(`${entry.name}: its name is not UTF-8 and is archived like this`)
    const other = listing.others.get(child)
    if (other === undefined) yield { ...entry, kind: 'file' }
    else if (other.isDirectory()) yield* walk(entry.bytes, entry.name, warn)
    else if (other.isSymbolicLink()) yield { ...entry, kind: 'symlink' }
    else warn(`${entry.name}: left out, it is ${whatIs(other)}`)
  }
}

function whatIs(found: Dirent): string {
  return found.isSocket() ? 'a socket' : found.isFIFO() ? 'a named pipe' : 'a device'
}
