import { type Dirent, opendirSync } from 'node:fs'
import { systemCode } from '../../files/system-code.js'

/** One thing in a directory tree, parents before what is in them, each folder in byte order. */
export interface WalkEntry {
  /** Where it is, one character for each byte: file names are bytes and need not be UTF-8. See {@link toPath}. */
  readonly bytes: string
  /** Path inside the archive in the same way, without a slash at its end. */
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
  return Buffer.byteLength(bytes) === bytes.length ? bytes : toBuffer(bytes)
}

/** The bytes that a string holds, one in each character. */
function toBuffer(bytes: string): Buffer {
  return Buffer.from(bytes, 'latin1')
}

/** The same as text for people; bytes that are not UTF-8 are lost. */
export function toText(bytes: string): string {
  return toBuffer(bytes).toString('utf8')
}

/** Text as its bytes, one in each character. */
export function toBytes(text: string): string {
  return Buffer.from(text).toString('latin1')
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
    warn(`${toText(name)}: left out its contents (${reasonOf(error)})`)
    return
  }
  for (const child of listing.names) {
    // Spelt out, since V8 promotes what a spread makes: a hundred thousand entries would stay until the old space is full.
    const path = `${bytes}/${child}`
    const nameInside = `${name}/${child}`
    const other = listing.others.get(child)
    if (other === undefined) yield { bytes: path, name: nameInside, kind: 'file' }
    else if (other.isDirectory()) yield* walk(path, nameInside, warn)
    else if (other.isSymbolicLink()) yield { bytes: path, name: nameInside, kind: 'symlink' }
    else warn(`${toText(nameInside)}: left out, it is ${whatIs(other)}`)
  }
}

function whatIs(found: Dirent): string {
  return found.isSocket() ? 'a socket' : found.isFIFO() ? 'a named pipe' : 'a device'
}
