import { createHash } from 'node:crypto'
import { createReadStream, type Stats } from 'node:fs'
import { link, lstat, readdir, rename } from 'node:fs/promises'

function code(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? ''
}

/** Size in bytes, or `undefined` when there is no such file. */
export async function sizeOf(path: string): Promise<number | undefined> {
  return (await statIfThere(path))?.size
}

/** What the file system knows of a file, or `undefined` when there is none. Of a link, which is never followed, what it is itself. */
export async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(code(error))) return undefined
    throw error
  }
}

/** Whether a folder is there; a link to one is none, since whoever planted it may have it lead anywhere. */
export async function isFolder(path: string): Promise<boolean> {
  return (await statIfThere(path))?.isDirectory() === true
}

/** Names in a folder; none when there is no such folder. */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(code(error))) return []
    throw error
  }
}

/** SHA-256 of a file, 64 hex digits. */
export async function digestFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

/**
 * Gives a file a further name unless that is taken, in one step. On file systems without hard links the file moves there
 * instead, and only the caller's own lock keeps two from doing so at once.
 */
export async function takeName(path: string, name: string): Promise<boolean> {
  try {
    await link(path, name)
    return true
  } catch (error) {
    if (code(error) === 'EEXIST') return false
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(code(error))) throw error
  }
  if ((await sizeOf(name)) !== undefined) return false
  await rename(path, name)
  return true
}
