import { type BigIntStats, constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rmdir, unlink } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { errnoOf, RequestError } from '../request-error.js'
import { Folder } from './folder.js'
import { refuseKernelFile } from './pseudo-files.js'
import type { Place, SandboxRoot } from './sandbox-root.js'

// Without O_NONBLOCK a planted FIFO would hold one of the few threads of the pool for good.
const SAFE = constants.O_NOFOLLOW | constants.O_NONBLOCK

/** Opens a regular file for reading; the caller closes it. */
export async function openFile(
  root: SandboxRoot,
  path: string,
): Promise<{ handle: FileHandle; stat: BigIntStats }> {
  return root.at(path, {}, async ({ at, stat }) => {
    if (stat?.isDirectory() === true)
      throw new RequestError('invalid_argument', `path '${path}' is a directory`)
    const handle = await open(at, constants.O_RDONLY | SAFE)
    try {
      return { handle, stat: await regular(handle, path) }
    } catch (error) {
      await handle.close()
      throw error
    }
  })
}

/** What {@link writeFile} may do. */
export interface WriteOptions {
  /** Make missing parent folders; otherwise a missing one is `not_found`. @default true */
  readonly makeParents?: boolean
  /** Refuse to replace a file that exists. @default false */
  readonly exclusive?: boolean
  readonly mode?: number
}

/** Streams `body` into a file, replacing its content; resolves the real path and what was written. */
export async function writeFile(
  root: SandboxRoot,
  path: string,
  body: Readable,
  { makeParents = true, exclusive = false, mode = 0o644 }: WriteOptions = {},
): Promise<{ path: string; stat: BigIntStats }> {
  return root.at(path, { makeParents }, async ({ at, path: real, stat }) => {
    if (stat?.isDirectory() === true)
      throw new RequestError('invalid_argument', `path '${path}' is a directory`)
    const flags = constants.O_WRONLY | constants.O_CREAT | (exclusive ? constants.O_EXCL : 0) | SAFE
    const handle = await open(at, flags, mode)
    try {
      await regular(handle, path)
      await handle.truncate(0)
      for await (const chunk of body) await writeAll(handle, chunk as Buffer)
      return { path: real, stat: await handle.stat({ bigint: true }) }
    } finally {
      await handle.close()
    }
  })
}

async function writeAll(handle: FileHandle, chunk: Buffer): Promise<void> {
  for (let offset = 0; offset < chunk.length; ) {
    offset += (await handle.write(chunk, offset)).bytesWritten
  }
}

async function regular(handle: FileHandle, path: string): Promise<BigIntStats> {
  const stat = await handle.stat({ bigint: true })
  if (!stat.isFile()) throw new RequestError('invalid_argument', `path '${path}' is not a regular file`)
  refuseKernelFile(handle, path)
  return stat
}

/** Makes a folder and the missing ones above it. */
export async function makeFolder(root: SandboxRoot, path: string, mode = 0o755): Promise<void> {
  await root.at(path, { makeParents: true }, async ({ at, stat }) => {
    if (stat?.isDirectory() === true)
      throw new RequestError('already_exists', `directory '${path}' already exists`)
    if (stat !== undefined)
      throw new RequestError('invalid_argument', `path '${path}' exists and is not a directory`)
    await mkdir(at, mode)
  })
}

/** Like {@link makeFolder}, and content when it is already there. */
export async function ensureFolder(root: SandboxRoot, path: string, mode?: number): Promise<void> {
  try {
    await makeFolder(root, path, mode)
  } catch (error) {
    if (!(error instanceof RequestError && error.code === 'already_exists')) throw error
  }
}

/** Removes a file, a link or a folder with all in it. Nothing there is nothing to do. */
export async function removeEntry(root: SandboxRoot, path: string): Promise<boolean> {
  try {
    return await root.at(path, { follow: false }, async (place) => {
      if (place.stat === undefined) return false
      if (place.path === '/') throw new RequestError('invalid_argument', 'the root cannot be removed')
      await removePlace(place)
      return true
    })
  } catch (error) {
    if (error instanceof RequestError && error.code === 'not_found') return false
    throw error
  }
}

async function removePlace({ at, stat }: Pick<Place, 'at' | 'stat'>): Promise<void> {
  await (stat?.isDirectory() === true ? removeFolder(at) : unlink(at))
}

async function removeFolder(at: string): Promise<void> {
  const folder = Folder.open(at)
  try {
    for (const entry of await readdir(folder.at, { withFileTypes: true })) {
      const child = folder.child(entry.name)
      await (entry.isDirectory() ? removeFolder(child) : unlink(child)).catch(goneAlready)
    }
  } finally {
    folder.close()
  }
  await rmdir(at)
}

/** A process of the sandbox removed it first. */
function goneAlready(error: unknown): void {
  if (errnoOf(error) !== 'ENOENT') throw error
}

/** Renames within the sandbox, making the new parent; resolves the new real path. */
export async function moveEntry(root: SandboxRoot, source: string, destination: string): Promise<string> {
  return root.at(source, { follow: false }, async (from) => {
    if (from.stat === undefined) throw new RequestError('not_found', `path '${source}' does not exist`)
    return root.at(destination, { follow: false, makeParents: true }, async (to) => {
      await rename(from.at, to.at)
      return to.path
    })
  })
}
