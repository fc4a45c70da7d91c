import type { BigIntStats } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { errnoOf, RequestError } from '../request-error.js'
import { Folder } from './folder.js'
import type { SandboxRoot } from './sandbox-root.js'

/** Something found in a folder. */
export interface Listed {
  /** Absolute, as the sandbox sees it. */
  readonly path: string
  readonly stat: BigIntStats
}

/** Lists depth-first in the order of names, folders before what is in them, down to `depth` levels. */
export async function listFolder(root: SandboxRoot, path: string, depth: number): Promise<Listed[]> {
  return root.at(path, {}, async ({ at, path: real, stat }) => {
    if (stat === undefined) throw new RequestError('not_found', `path '${path}' does not exist`)
    if (!stat.isDirectory()) throw new RequestError('invalid_argument', `path '${path}' is not a directory`)
    const found: Listed[] = []
    await collect(at, real === '/' ? '' : real, depth, found)
    return found
  })
}

async function collect(at: string, path: string, depth: number, found: Listed[]): Promise<void> {
  const folder = Folder.open(at)
  try {
    for (const name of (await readdir(folder.at)).sort()) {
      const stat = await lstatOrGone(folder.child(name))
      if (stat === undefined) continue
      found.push({ path: `${path}/${name}`, stat })
      if (depth > 1 && stat.isDirectory())
        await collect(folder.child(name), `${path}/${name}`, depth - 1, found)
    }
  } finally {
    folder.close()
  }
}

/** Undefined when it was removed since the folder was read. */
async function lstatOrGone(at: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(at, { bigint: true })
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}
