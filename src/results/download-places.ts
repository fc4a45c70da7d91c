import { createHash } from 'node:crypto'
import { mkdir, readdir } from 'node:fs/promises'
import { extname, join, sep } from 'node:path'
import type { CallOptions } from '../call-options.js'
import { ARCHIVE_SUFFIX, byteLength } from '../protocol/key.js'
import { isPartName } from './part-name.js'
import type { Result } from './result.js'
import { UnpackedFolders } from './unpacked-folders.js'

/** Where a result is to be saved. */
export interface Place {
  readonly path: string
  /** Where its archive is unpacked. */
  readonly unpackedPath: string
  readonly folder: Folder
}

/** How places are chosen. */
export interface PlacesOptions extends CallOptions {
  readonly pathOf: (result: Result) => string
  /** Whether archives are unpacked, for which they need a second name. */
  readonly extract: boolean
}

/** How many digits of its digest tell a name from others, should fewer not do. */
const DIGITS = [8, 16, 64]
/** Longest name in bytes: a file system's 255, less the dot in front of an archive that is about to be unpacked. */
const MAX_NAME_BYTES = 254
/** What an ending has to leave of a name that is shortened, in bytes: its timestamp, and more. */
const MIN_STEM_BYTES = 32

/**
 * A folder that is downloaded into, and who has which name in it. Names that any file system takes for the same one, since they
 * differ only in case, in how their letters are composed or in signs that nobody sees, are never given to two.
 */
export class Folder {
  readonly path: string
  /** Names that were there before. */
  readonly names: ReadonlySet<string>
  /** Those of unfinished files. */
  readonly parts: readonly string[]
  readonly #folded: ReadonlySet<string>
  #unpacked: Promise<UnpackedFolders> | undefined
  readonly #owners = new Map<string, string>()

  /** @param names what is there */
  constructor(path: string, names: readonly string[]) {
    this.path = path
    this.names = new Set(names)
    this.parts = names.filter(isPartName)
    this.#folded = new Set(names.map(fold))
  }

  /** What is known of the folders in it. */
  unpacked(): Promise<UnpackedFolders> {
    this.#unpacked ??= UnpackedFolders.open(this.path)
    return this.#unpacked
  }

  /**
   * The name for an owner, who gets the same one each time: the given one, or if that is somebody else's, or is spelled otherwise by
   * what was there before, one that a digest of the owner has been added to, before the ending.
   *
   * @param alsoOf what else the owner makes of a name that it takes
   */
  take(name: string, owner: string, alsoOf: (name: string) => string = (same) => same): string {
    for (const candidate of candidatesFor(name, owner)) {
      const both = [candidate, alsoOf(candidate)]
      const isFree = both.every((wanted) => {
        const isMine = (this.#owners.get(fold(wanted)) ?? owner) === owner
        return isMine && (candidate !== name || !this.#isSpelledOtherwise(wanted))
      })
      if (!isFree) continue
      for (const wanted of both) this.#owners.set(fold(wanted), owner)
      return candidate
    }
    throw new Error('candidates have no end')
  }

  /** What was there under another spelling is of another result, and would be replaced where both are one. */
  #isSpelledOtherwise(name: string): boolean {
    return !this.names.has(name) && this.#folded.has(fold(name))
  }
}

/** Chooses a place for each result, in key order, and makes the folders: which files there will be does not depend on the file system. */
export async function choosePlaces(
  results: readonly Result[],
  dir: string,
  { pathOf, extract, signal }: PlacesOptions,
): Promise<ReadonlyMap<Result, Place>> {
  const folders = new Map<string, Folder>()
  const folderAt = async (path: string): Promise<Folder> => {
    const folder = folders.get(path) ?? (await makeFolder(path))
    folders.set(path, folder)
    return folder
  }
  const places = new Map<Result, Place>()
  for (const result of results.toSorted((a, b) => (a.key < b.key ? -1 : 1))) {
    signal?.throwIfAborted()
    const parents = pathOf(result).split(sep)
    const name = parents.pop() ?? ''
    let folder = await folderAt(dir)
    for (const parent of parents) {
      folder = await folderAt(join(folder.path, folder.take(parent, result.taskId)))
    }
    const taken = folder.take(name, result.key, extract ? unpackedName : undefined)
    const path = join(folder.path, taken)
    places.set(result, { path, unpackedPath: unpackedName(path), folder })
  }
  return places
}

async function makeFolder(path: string): Promise<Folder> {
  await mkdir(path, { recursive: true })
  return new Folder(path, await readdir(path))
}

function unpackedName(name: string): string {
  return name.endsWith(ARCHIVE_SUFFIX) ? name.slice(0, -ARCHIVE_SUFFIX.length) : name
}

/** Names without end: whoever knows what is added may have had other results take any of them. */
function* candidatesFor(name: string, owner: string): Generator<string, void, undefined> {
  yield name
  const digest = digestOf(owner)
  for (const count of DIGITS) yield addBeforeEnding(name, `~${digest.slice(0, count)}`)
  for (let n = 1; ; n++) yield addBeforeEnding(name, `~${digestOf(`${owner} ${n}`)}`)
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** What does not fit any more gives way before the addition, by whole characters. */
function addBeforeEnding(name: string, addition: string): string {
  const ending = name.endsWith(ARCHIVE_SUFFIX) ? ARCHIVE_SUFFIX : extname(name)
  const stem = name.slice(0, name.length - ending.length)
  const roomBytes = MAX_NAME_BYTES - byteLength(addition)
  const stemBytes = roomBytes - byteLength(ending)
  // What leaves no room for a name is no ending.
  if (stemBytes < Math.min(byteLength(stem), MIN_STEM_BYTES)) return `${shorten(name, roomBytes)}${addition}`
  return `${shorten(stem, stemBytes)}${addition}${ending}`
}

function shorten(text: string, maxBytes: number): string {
  let sizeBytes = byteLength(text)
  if (sizeBytes <= maxBytes) return text
  const characters = [...text]
  while (sizeBytes > maxBytes) sizeBytes -= byteLength(characters.pop() ?? '')
  return characters.join('')
}

/**
 * The same for names that some file system takes for the same: APFS, HFS+, NTFS and ext4 with folding each compare in their own
 * way, and this is no finer than any. Taking two for the same that are not costs no more than an addition to a name.
 * https://www.kernel.org/doc/html/latest/admin-guide/ext4.html#case-insensitive-file-name-lookups
 */
function fold(name: string): string {
  return name
    .normalize('NFD')
    .replace(/\p{Default_Ignorable_Code_Point}/gu, '')
    .toUpperCase()
    .toLowerCase()
    .normalize('NFD')
}
