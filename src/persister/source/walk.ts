import { type Dirent, readdirSync } from 'node:fs'
import { systemCode } from '../fs-error.js'

/** One thing in a directory tree, parents before what is in them, each folder in byte order. */
export interface WalkEntry {
  /** Where it is, one character for each byte: file names are bytes and need not be UTF-8. See {@link toPath}. */
  readonly bytes: string
  /** Path inside the archive, without a slash at its end. */
  readonly name: string
  readonly kind: 'file' | 'directory' | 'symlink'
}

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

/**
 * Walks a directory tree without following links; what cannot be read is reported to `warn` and left out. It asks the system
 * directly: for thousands of small files the detour over other threads takes ten times as long.
 */
export function* walk(bytes: string, name: string, warn: (line: string) => void): Generator<WalkEntry> {
  let children: Dirent[]
  try {
    children = readdirSync(toPath(bytes), { withFileTypes: true, encoding: 'latin1' })
  } catch (error) {
    warn(`${name}: left out its contents (${reasonOf(error)})`)
    children = []
  }
  yield { bytes, name, kind: 'directory' }
  children.sort((a, b) => (a.name < b.name ? -1 : 1))
  for (const child of children) {
    const { text, exact } = nameText(child.name)
    const entry = { bytes: `${bytes}/${child.name}`, name: `${name}/${text}` }
    if (!exact) warn(`${entry.name}: its name is not UTF-8 and is archived like this`)
    if (child.isDirectory()) yield* walk(entry.bytes, entry.name, warn)
    else if (child.isFile()) yield { ...entry, kind: 'file' }
    else if (child.isSymbolicLink()) yield { ...entry, kind: 'symlink' }
    else warn(`${entry.name}: left out, it is ${whatIs(child)}`)
  }
}

function whatIs(found: Dirent): string {
  return found.isSocket() ? 'a socket' : found.isFIFO() ? 'a named pipe' : 'a device'
}
