import { randomBytes } from 'node:crypto'
import { closeSync, mkdirSync, renameSync, rmdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { createFile, removeFile, sync, withOpen, writeAt } from './disk.js'
import { systemCode } from './system-code.js'

/** Start of every file that is not finished; readers of the spool pass over it. */
export const TEMPORARY_PREFIX = '.tmp-'

/** Path of a new unfinished file in a folder; nobody else has it. */
export function temporaryPath(folder: string): string {
  return `${folder}/${TEMPORARY_PREFIX}${process.pid}-${randomBytes(8).toString('hex')}`
}

/** Makes a folder's entries survive a crash of the machine. */
export async function syncFolder(folder: string): Promise<void> {
  try {
    await withOpen(folder, sync)
  } catch (error) {
    // Some network and FUSE file systems cannot sync a folder; there is then nothing to be had.
    if (!['EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'EBADF'].includes(systemCode(error) ?? '')) throw error
  }
}

/** Creates a folder with its parents; resolves when all of them survive a crash. */
export async function makeFolder(folder: string): Promise<void> {
  const first = createFolder(folder)
  if (first === undefined) return
  const made: string[] = []
  for (let path = folder; path.length >= first.length; path = dirname(path)) made.push(path)
  // All have an answer before any is taken back.
  const synced = await Promise.allSettled(made.map((path) => syncFolder(dirname(path))))
  const failed = synced.find(({ status }) => status === 'rejected')
  if (failed?.status !== 'rejected') return
  takeBack(made)
  throw failed.reason
}

/** So that the next call makes these folders anew and does not trust in them. Innermost first; what is in use stays. */
function takeBack(folders: readonly string[]): void {
  try {
    for (const folder of folders) rmdirSync(folder)
  } catch {
    // Another process is at work in it, which is told of its own syncs.
  }
}

function createFolder(folder: string): string | undefined {
  try {
    return mkdirSync(folder, { recursive: true })
  } catch (error) {
    // Node says ENOENT on a read-only file system; asked for the one folder it says what is the matter.
    if (systemCode(error) === 'ENOENT') mkdirSync(folder)
    throw error
  }
}

/** How a file is replaced. */
export interface ReplaceOptions {
  /** @default 0o644 */
  readonly mode?: number
  /** Where it lies until it is whole. @default the file's own folder */
  readonly folder?: string
  /** It is not put in its place before this is done. */
  readonly after?: Promise<unknown>
}

/** A new text of a file, safe on disk but not yet in its place. */
export interface PreparedFile {
  /** Replaces the file whole: readers see the old text or the new, also after a crash. */
  put(): void
  discard(): void
}

/** Writes a file's new text beside it; the caller puts it in its place, or discards it. */
export async function prepareFile(
  path: string,
  text: string,
  { mode = 0o644, folder = dirname(path) }: Omit<ReplaceOptions, 'after'> = {},
): Promise<PreparedFile> {
  const temporary = temporaryPath(folder)
  try {
    const descriptor = createFile(temporary, mode)
    try {
      await writeAt(descriptor, Buffer.from(text), 0)
      await sync(descriptor)
    } finally {
      closeSync(descriptor)
    }
  } catch (error) {
    removeFile(temporary)
    throw error
  }
  return { put: () => renameSync(temporary, path), discard: () => removeFile(temporary) }
}

/**
 * Replaces a file whole: readers see the old text or the new, also after a crash. Which of the two a crash leaves is open
 * until its folder is synced.
 */
export async function replaceFile(
  path: string,
  text: string,
  { after, ...options }: ReplaceOptions = {},
): Promise<void> {
  // What goes wrong before it is awaited is reported in its place.
  after?.catch(() => {})
  const prepared = await prepareFile(path, text, options)
  try {
    await after
    prepared.put()
  } catch (error) {
    prepared.discard()
    throw error
  }
}

/** Replaces a file whole; once this resolves a crash leaves the new text. */
export async function writeDurably(path: string, text: string, options: ReplaceOptions = {}): Promise<void> {
  await replaceFile(path, text, options)
  await syncFolder(dirname(path))
}
