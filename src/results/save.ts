import type { FileHandle } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import type { CallOptions } from '../call-options.js'
import { ConductorError, type ErrorCode, isConductorError } from '../errors.js'
import type { BodyFacts, ResultStore } from '../stores/result-store.js'
import { LOCAL_CODES } from './local-error.js'
import { PartFile } from './part-file.js'
import { namesBeside } from './part-name.js'
import type { OpenedTier, ResultTiers } from './read-tiers.js'

const codes: Readonly<Record<string, ErrorCode>> = { ENOENT: 'NOT_FOUND', ...LOCAL_CODES }

/** How a result is saved. */
export interface SaveSpec extends CallOptions {
  readonly tiers: ResultTiers
  /** What the bytes must be; undefined takes whatever comes. */
  readonly expected: BodyFacts | undefined
  /** The tier to begin with, where one has been asked already; those before it have failed. */
  readonly opened?: OpenedTier | undefined
  /** Turns the bytes, once they are verified, into those that are to be saved, in place; resolves with how many these are. */
  readonly convert?: ((file: FileHandle, size: number) => Promise<number>) | undefined
  /** Told of the bytes that are there so far. */
  readonly onBytes?: ((sizeBytes: number) => void) | undefined
  /** The names in the file's folder. */
  readonly siblings: readonly string[]
}

/** A failure of this machine's own file system, which no other tier can mend. */
class LocalFailure extends Error {}

/**
 * Writes a result to a file that appears under its name only once all of it is there, verified. What breaks off is kept beside it
 * for the next call to go on with; what turns out wrong, and what does not fit on the disk, is not.
 */
export async function saveResult(path: string, spec: SaveSpec): Promise<void> {
  let part: PartFile
  try {
    part = await PartFile.open(path, spec.expected, spec.siblings)
  } catch (error) {
    throw mapSaveError(error, path)
  }
  try {
    await fill(part, spec)
    if (spec.convert !== undefined) await part.convert(spec.convert)
    await part.finish()
  } catch (error) {
    const said = mapSaveError(error instanceof LocalFailure ? error.cause : error, path)
    const useless = isConductorError(said) && (said.code === 'INTEGRITY' || said.code === 'NO_SPACE')
    await (useless ? part.discard() : part.leave())
    throw said
  }
}

/** The names in the folder that a file is to be saved in. */
export async function listSiblings(path: string): Promise<string[]> {
  try {
    return await namesBeside(path)
  } catch (error) {
    throw mapSaveError(error, path)
  }
}

/** Reads on from where the file ends, on one tier after the other, until the file is what it must be. */
async function fill(part: PartFile, spec: SaveSpec): Promise<void> {
  const { tiers, expected, opened, onBytes, signal } = spec
  if (expected !== undefined && part.size > 0) {
    onBytes?.(part.size)
    if (part.size === expected.size && (await isRight(part, 'an earlier download'))) return
  }
  const errors: ConductorError[] = []
  let isReached = opened === undefined
  for await (const store of tiers.all({ signal })) {
    // Those before the one that answered have failed.
    isReached ||= store === opened?.store
    if (!isReached) continue
    const error = await fillFrom(store, part, spec)
    if (error === undefined) return
    errors.push(error)
  }
  throw tiers.allFailed('save', errors)
}

/** Gives what is wrong with the tier, or `undefined` when the file is whole. */
async function fillFrom(
  store: ResultStore,
  part: PartFile,
  { tiers, opened, onBytes, signal }: SaveSpec,
): Promise<ConductorError | undefined> {
  const own = opened?.store === store ? opened : undefined
  for (;;) {
    const alone = part.size === 0
    try {
      for await (const chunk of tiers.chunks(store, { signal, offset: part.size, opened: own })) {
        part.append(chunk)
        if (part.isBehind) await locally(() => part.catchUp())
        onBytes?.(part.size)
      }
      part.verify(store.name)
      return undefined
    } catch (error) {
      const noted = tiers.note(store, error)
      // The next tier goes on from here.
      if (noted.code !== 'INTEGRITY') return noted
      await locally(() => part.reset())
      // Bytes from before may have been the wrong ones: once more, all of them from here.
      if (alone) return noted
    }
  }
}

async function isRight(part: PartFile, where: string): Promise<boolean> {
  try {
    part.verify(where)
    return true
  } catch (error) {
    if (!isConductorError(error)) throw error
    await part.reset()
    return false
  }
}

async function locally(act: () => Promise<void>): Promise<void> {
  try {
    await act()
  } catch (cause) {
    throw new LocalFailure('local', { cause })
  }
}

function mapSaveError(error: unknown, path: string): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException
  // Only what the file system itself said; everything else came from the source.
  if (code === undefined || syscall === undefined || error instanceof ConductorError) return error
  const kind = codes[code] ?? 'INVALID_OPTION'
  return new ConductorError(kind, `cannot save ${basename(path)} in ${dirname(path)}: ${code}`, {
    cause: error,
  })
}
