import { type Dirent, lstatSync, opendirSync, readdirSync, type Stats } from 'node:fs'
import { systemCode } from '../../files/system-code.js'
import { mapFsError } from '../fs-error.js'

/** One thing in a directory tree, parents before what is in them, each folder in byte order. */
export interface WalkEntry {
  /** Where it is, one character for each byte: file names are bytes and need not be UTF-8. See {@link toPath}. */
  readonly bytes: string
  /** Path inside the archive in the same way, without a slash at its end. */
  readonly name: string
  readonly kind: 'file' | 'directory' | 'symlink'
  /** Whether both are ASCII, which is then not looked for again. */
  readonly isAscii: boolean
}

const LISTED_AT_ONCE = 1024

/** Why something may be missing in an archive, in a word: it is gone, something else has taken its place, or we may not read it. */
const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'vanished',
  ENOTDIR: 'ENOTDIR',
  ELOOP: 'ELOOP',
  EACCES: 'EACCES',
  EPERM: 'EPERM',
}

/** Remarks on an entry that may be missing; throws for any other error: to go on would acknowledge an archive with a gap. */
export function leaveOut(
  { name }: Pick<WalkEntry, 'name'>,
  what: string,
  error: unknown,
  warn: (line: string) => void,
): void {
  const reason = reasons[systemCode(error) ?? '']
  // The directory itself has no slash in its name; without it there is nothing to archive.
  if (reason === undefined || !name.includes('/')) throw mapFsError(error, `cannot archive ${toText(name)}`)
  warn(`${toText(name)}: ${what} (${reason})`)
}

/** An entry's path as the system takes it. */
export function toPath({ bytes, isAscii }: WalkEntry): string | Buffer {
  return isAscii ? bytes : toBuffer(bytes)
}

/** Whether every character of a text that stands for bytes is one of ASCII. */
function isAscii(bytes: string): boolean {
  return Buffer.byteLength(bytes) === bytes.length
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
  readonly names: readonly string[]
  /** Whether all of them are ASCII. */
  readonly areAscii: boolean
  /** Of those that are no regular files. */
  readonly others: ReadonlyMap<string, Dirent | Stats>
}

type Found = Pick<Listing, 'others'> & { readonly names: string[] }

function list(entry: WalkEntry, warn: (line: string) => void): Listing {
  const { names, others } = listWithTypes(entry) ?? listOneByOne(entry, warn)
  // By UTF-16 unit, which here is by byte.
  names.sort()
  return { names, others, areAscii: isAscii(names.join('')) }
}

/** Nothing where a type is missing and Node, which then looks for itself, does not find a name that it takes for text. */
function listWithTypes(entry: WalkEntry): Found | undefined {
  const names: string[] = []
  const others = new Map<string, Dirent>()
  const folder = opendirSync(toPath(entry), { encoding: 'latin1', bufferSize: LISTED_AT_ONCE })
  try {
    for (let found = folder.readSync(); found !== null; found = folder.readSync()) {
      names.push(found.name)
      if (!found.isFile()) others.set(found.name, found)
    }
  } catch {
    // A folder that cannot be read says so again when it is listed without types.
    return undefined
  } finally {
    folder.closeSync()
  }
  return { names, others }
}

/** For file systems that do not tell types with names, as some over a network. */
function listOneByOne(entry: WalkEntry, warn: (line: string) => void): Found {
  const names: string[] = []
  const others = new Map<string, Stats>()
  for (const child of readdirSync(toPath(entry), 'latin1')) {
    try {
      const found = lstatSync(toBuffer(`${entry.bytes}/${child}`))
      names.push(child)
      if (!found.isFile()) others.set(child, found)
    } catch (error) {
      leaveOut({ name: `${entry.name}/${child}` }, 'left out', error, warn)
    }
  }
  return { names, others }
}

/** A folder that is being walked. */
interface Folder extends Listing {
  readonly bytes: string
  readonly name: string
  readonly isAscii: boolean
  /** How many of its names have been handed over. */
  done: number
}

/**
 * Walks a directory tree without following links; what cannot be read is reported to `warn` and left out. It asks the system
 * directly: for thousands of small files the detour over other threads takes ten times as long. No generator either, since
 * every entry would pass through as many as it is deep.
 */
export class Walk {
  readonly #warn: (line: string) => void
  readonly #folders: Folder[] = []
  #root: WalkEntry | undefined

  constructor(bytes: string, name: string, warn: (line: string) => void) {
    this.#warn = warn
    this.#root = { bytes, name, kind: 'directory', isAscii: isAscii(bytes) && isAscii(name) }
  }

  /** The next entry; `undefined` when there is none. A folder is listed before it is handed over. */
  next(): WalkEntry | undefined {
    if (this.#root !== undefined) return this.#enter(this.#root)
    for (;;) {
      const folder = this.#folders.at(-1)
      if (folder === undefined) return undefined
      const child = folder.names[folder.done++]
      if (child === undefined) {
        this.#folders.pop()
        continue
      }
      const entry = this.#look(folder, child)
      if (entry !== undefined) return entry.kind === 'directory' ? this.#enter(entry) : entry
    }
  }

  #look(folder: Folder, child: string): WalkEntry | undefined {
    const bytes = `${folder.bytes}/${child}`
    const name = `${folder.name}/${child}`
    const ascii = folder.isAscii && (folder.areAscii || isAscii(child))
    const other = folder.others.get(child)
    if (other === undefined) return { bytes, name, kind: 'file', isAscii: ascii }
    if (other.isDirectory()) return { bytes, name, kind: 'directory', isAscii: ascii }
    if (other.isSymbolicLink()) return { bytes, name, kind: 'symlink', isAscii: ascii }
    this.#warn(`${toText(name)}: left out, it is ${whatIs(other)}`)
    return undefined
  }

  #enter(entry: WalkEntry): WalkEntry {
    this.#root = undefined
    const { bytes, name } = entry
    try {
      this.#folders.push({ ...list(entry, this.#warn), bytes, name, isAscii: entry.isAscii, done: 0 })
    } catch (error) {
      leaveOut(entry, 'left out its contents', error, this.#warn)
    }
    return entry
  }
}

function whatIs(found: Dirent | Stats): string {
  return found.isSocket() ? 'a socket' : found.isFIFO() ? 'a named pipe' : 'a device'
}
