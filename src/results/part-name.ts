import { createHash, randomBytes } from 'node:crypto'
import { lstat, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { isAlive, ownOwner } from '../files/owner.js'
import type { BodyFacts } from '../stores/result-store.js'

/** Names that unfinished files have: what they will be, what they are of, and whose they are. */
const partPattern = /^\.([0-9a-f]{16})\.([0-9a-f]{16})\.(\d{1,10})-(\d*)-([0-9a-f]{8})\.[0-9a-f]{8}\.part$/

/** Unfinished files that this process is writing to. */
const active = new Set<string>()

/** Where an unfinished file lies, and what tells it from others. */
export interface PartName {
  readonly path: string
  readonly folder: string
  readonly targetId: string
  readonly identity: string
}

/** A new name for an unfinished file of this process's, which counts as held until it is released. */
export function claimPart(target: string, expected: BodyFacts | undefined): PartName {
  // Beside the target, since a rename does not cross file systems.
  const folder = dirname(target)
  const targetId = short(basename(target))
  // Without a digest no two reads are known to be of the same bytes.
  const identity = expected === undefined ? randomBytes(8).toString('hex') : short(identityOf(expected))
  const { pid, start } = ownOwner()
  const suffix = randomBytes(4).toString('hex')
  const path = join(folder, `.${targetId}.${identity}.${pid}-${start}-${placeId()}.${suffix}.part`)
  active.add(path)
  return { path, folder, targetId, identity }
}

/** From now on others may go on with the file. */
export function releasePart(path: string): void {
  active.delete(path)
}

/** The names in the folder that a file is to lie in. */
export function namesBeside(target: string): Promise<string[]> {
  return readdir(dirname(resolve(target)))
}

/** Whether it is one of an unfinished file. */
export function isPartName(name: string): boolean {
  return partPattern.test(name)
}

/** Whether an earlier call has left anything for this target, by the names in its folder. */
export function hasPart(target: string, siblings: readonly string[]): boolean {
  const start = `.${short(basename(resolve(target)))}.`
  return siblings.some((name) => name.startsWith(start))
}

function identityOf({ key, size, sha256 }: BodyFacts): string {
  return JSON.stringify([key, size, sha256])
}

/** Makes the largest of what nobody living writes to this process's own; removes the rest. False when there is none. */
export async function takeOver(
  { folder, targetId, identity, path: mine }: PartName,
  names: readonly string[],
): Promise<boolean> {
  const found: { readonly path: string; readonly size: number }[] = []
  for (const name of names) {
    if (!name.startsWith(`.${targetId}.`)) continue
    const [, target, of, pid = '', start = '', place = ''] = partPattern.exec(name) ?? []
    if (target !== targetId) continue
    const path = join(folder, name)
    const stat = await lstat(path).catch(() => undefined)
    // Gone meanwhile, or somebody is playing tricks: a link would have us write elsewhere.
    if (stat === undefined || !stat.isFile()) continue
    if (isHeld(path, { pid: Number(pid), start, place }, stat.mtimeMs)) continue
    if (of === identity) found.push({ path, size: stat.size })
    else await rm(path, { force: true })
  }
  found.sort((a, b) => b.size - a.size)
  let taken = false
  for (const { path } of found) {
    if (taken) await rm(path, { force: true })
    else taken = await tryRename(path, mine)
  }
  return taken
}

function isHeld(
  path: string,
  owner: { pid: number; start: string; place: string },
  mtimeMs: number,
): boolean {
  if (active.has(path)) return true
  const self = ownOwner()
  const isHere = owner.place === placeId()
  if (isHere && owner.pid === self.pid && owner.start === self.start) return false
  return isAlive({ ...owner, place: isHere ? self.place : '' }, mtimeMs)
}

async function tryRename(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to)
    return true
  } catch (error) {
    // Somebody else was first.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

function placeId(): string {
  return short(ownOwner().place, 8)
}

function short(text: string, digits = 16): string {
  return createHash('sha256').update(text).digest('hex').slice(0, digits)
}
