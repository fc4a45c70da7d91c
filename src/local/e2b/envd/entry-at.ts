import type { BigIntStats } from 'node:fs'
import { describeEntry, type EntryInfo } from '../files/entry.js'
import { RequestError } from '../request-error.js'
import type { Sandbox } from '../sandbox/sandbox.js'

/** Describes what a path leads to, a link itself included; rejects with `not_found` when nothing is there. */
export async function entryAt(sandbox: Sandbox, path: string): Promise<EntryInfo> {
  const { root } = sandbox.live().jail
  const { path: real, stat } = await root.at(path, { follow: false }, async ({ path, stat }) => ({
    path,
    stat,
  }))
  if (stat === undefined) throw new RequestError('not_found', `path '${path}' does not exist`)
  return entryOf(sandbox, real, stat)
}

/** Describes what was found at a path. */
export function entryOf(sandbox: Sandbox, path: string, stat: BigIntStats): Promise<EntryInfo> {
  return describeEntry(sandbox.live().jail.root, path, stat, (file) => sandbox.fileMetadata.get(file))
}
