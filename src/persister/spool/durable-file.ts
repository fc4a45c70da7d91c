import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { systemCode } from '../fs-error.js'

/** Start of every file that is not finished; readers of the spool pass over it. */
export const TEMPORARY_PREFIX = '.tmp-'

/** Path of a new unfinished file in a folder; nobody else has it. */
export function temporaryPath(folder: string): string {
  return `${folder}/${TEMPORARY_PREFIX}${process.pid}-${randomBytes(8).toString('hex')}`
}

/** Makes a folder's entries survive a crash of the machine. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } catch (error) {
    // Some network and FUSE file systems cannot sync a folder; there is then nothing to be had.
    if (!['EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'EBADF'].includes(systemCode(error) ?? '')) throw error
  } finally {
    await handle.close()
  }
}

/** Creates a folder with its parents and makes all of them survive a crash. */
export async function makeFolder(folder: string): Promise<void> {
  const first = await mkdir(folder, { recursive: true }).catch(async (error: unknown) => {
    // Node says ENOENT on a read-only file system; asked for the one folder it says what is the matter.
    if (systemCode(error) === 'ENOENT') await mkdir(folder)
    throw error
  })
  if (first === undefined) return
  for (let made = folder; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made))
}

/** Writes all of a buffer at a position of a file; the system may take it in pieces. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten
  }
}

/** How a file is replaced. */
export interface ReplaceOptions {
  /** @default 0o644 */
  readonly mode?: number
  /** Where it lies until it is whole. @default the file's own folder */
  readonly folder?: string
}

/**
 * Replaces a file whole: readers see the old text or the new, also after a crash. Which of the two a crash leaves is open
 * until its folder is synced.
 */
export async function replaceFile(
  path: string,
  text: string,
  { mode = 0o644, folder = dirname(path) }: ReplaceOptions = {},
): Promise<void> {
  const temporary = temporaryPath(folder)
  try {
    const handle = await open(temporary, 'wx', mode)
    try {
      await writeAll(handle, Buffer.from(text), 0)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

/** Replaces a file whole; once this resolves a crash leaves the new text. */
export async function writeDurably(path: string, text: string, options: ReplaceOptions = {}): Promise<void> {
  await replaceFile(path, text, options)
  await syncFolder(dirname(path))
}
