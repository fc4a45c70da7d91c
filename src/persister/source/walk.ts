import { lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs'
import { systemCode } from '../fs-error.js'

/** One thing in a directory tree, parents before what is in them, each folder in byte order. */
export interface WalkEntry {
  /** Raw path; file names are bytes and need not be UTF-8. */
  readonly path: Buffer
  /** Path inside the archive, without a slash at its end. */
  readonly name: string
  readonly stats: Stats
  readonly kind: 'file' | 'directory' | 'symlink'
  readonly linkTarget: string | undefined
}

const slash = Buffer.from('/')

/** Why something cannot be read, in a word. */
export function reasonOf(error: unknown): string {
  const code = systemCode(error)
  return code === 'ENOENT' ? 'vanished' : (code ?? 'unreadable')
}

/** A file name as text; bytes that are not UTF-8 become `%XX`, since an archive's names are text. */
function nameText(name: Buffer): { text: string; exact: boolean } {
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
export function* walk(path: Buffer, name: string, warn: (line: string) => void): Generator<WalkEntry> {
  const found = inspect(path, name, warn)
  if (found === undefined) return
  yield found
  if (found.kind !== 'directory') return
  let children: Buffer[]
  try {
    children = readdirSync(path, { encoding: 'buffer' })
  } catch (error) {
    warn(`${name}: left out its contents (${reasonOf(error)})`)
    return
  }
  children.sort(Buffer.compare)
  for (const child of children) {
    const { text, exact } = nameText(child)
    if (!exact) warn(`${name}/${text}: its name is not UTF-8 and is archived like this`)
    yield* walk(Buffer.concat([path, slash, child]), `${name}/${text}`, warn)
  }
}

function inspect(path: Buffer, name: string, warn: (line: string) => void): WalkEntry | undefined {
  try {
    const stats = lstatSync(path)
    if (stats.isSymbolicLink()) {
      return { path, name, stats, kind: 'symlink', linkTarget: readlinkSync(path, 'utf8') }
    }
    if (stats.isDirectory()) return { path, name, stats, kind: 'directory', linkTarget: undefined }
    if (stats.isFile()) return { path, name, stats, kind: 'file', linkTarget: undefined }
    const what = stats.isSocket() ? 'a socket' : stats.isFIFO() ? 'a named pipe' : 'a device'
    warn(`${name}: left out, it is ${what}`)
  } catch (error) {
    warn(`${name}: left out (${reasonOf(error)})`)
  }
  return undefined
}
