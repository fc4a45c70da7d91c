import { randomBytes } from 'node:crypto'
import { lstat, mkdir, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ConductorError } from '../../errors.js'
import { makeFolder } from '../../files/durable-file.js'
import { isAlive, ownOwner, parseOwner } from '../../files/owner.js'
import { BodyWriter } from './body-writer.js'

const OWNER_FILE = 'owner.json'
/** How long a folder of another machine may be idle before it counts as left behind. */
const FOREIGN_IDLE_MS = 24 * 3600_000
/** Folders of this process; they carry its id, so that only this tells the living from the dead. */
const own = new Set<string>()

/** An upload that is whole on disk, under no name yet. */
export interface StagedBody {
  readonly path: string
  readonly sizeBytes: number
  /** 64 hex digits, of what was received. */
  readonly sha256: string
}

/** Where uploads lie until it is known what they are. Each process has a folder of its own; those of dead processes are emptied. */
export class StagingFolder {
  /** This process's own folder. */
  readonly path: string
  /** False when another living process keeps a folder here. */
  readonly alone: boolean

  readonly #durable: boolean

  private constructor(path: string, alone: boolean, durable: boolean) {
    this.path = path
    this.alone = alone
    this.#durable = durable
  }

  /**
   * Makes a folder below `parent` and removes what crashed processes left there. Refuses a parent that is somebody else's.
   * `durable` says whether uploads are synced, because they themselves become results.
   */
  static async open(parent: string, { durable }: { readonly durable: boolean }): Promise<StagingFolder> {
    await makeFolder(parent)
    await refuseForeign(parent)
    const name = randomBytes(8).toString('hex')
    const path = join(parent, name)
    await mkdir(path, { mode: 0o700 })
    own.add(path)
    await writeFile(join(path, OWNER_FILE), JSON.stringify(ownOwner()))
    let alone = true
    for (const other of await readdir(parent)) {
      if (other !== name && !(await removeDead(join(parent, other)))) alone = false
    }
    return new StagingFolder(path, alone, durable)
  }

  /** Path of a new file that nobody else uses. */
  newPath(): string {
    return join(this.path, randomBytes(12).toString('hex'))
  }

  /**
   * Writes chunks to a new file and digests them on the way; leaves nothing behind when that fails. No more is taken while
   * `onWritten` considers what the file has by then.
   */
  async receive(
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    check: (sizeBytes: number) => void = () => {},
    onWritten?: (path: string, writtenBytes: number) => Promise<void>,
  ): Promise<StagedBody> {
    const path = this.newPath()
    try {
      const handle = await open(path, 'wx')
      const writer = new BodyWriter(path, handle, this.#durable)
      try {
        for await (const chunk of chunks) {
          check(writer.sizeBytes + chunk.length)
          await writer.write(chunk)
          await onWritten?.(path, writer.writtenBytes)
        }
        const sha256 = await writer.finish()
        return { path, sizeBytes: writer.sizeBytes, sha256 }
      } finally {
        await writer.settle()
        await handle.close()
      }
    } catch (error) {
      await rm(path, { force: true })
      throw error
    }
  }

  /** Removes a file; it may be gone already. */
  async discard({ path }: Pick<StagedBody, 'path'>): Promise<void> {
    await rm(path, { force: true })
  }

  /** Removes the folder with every unfinished upload in it. */
  async close(): Promise<void> {
    own.delete(this.path)
    await rm(this.path, { recursive: true, force: true })
  }
}

// In a folder for everybody, such as /tmp, somebody else may have made it first.
async function refuseForeign(folder: string): Promise<void> {
  const found = await lstat(folder)
  const mine = process.getuid === undefined || found.uid === process.getuid()
  if (found.isDirectory() && mine) return
  throw new ConductorError('ACCESS_DENIED', `${folder} must be a folder of this process's own user`)
}

/** Removes a folder whose process is gone; false when it lives, or may do so. */
async function removeDead(folder: string): Promise<boolean> {
  if (own.has(folder) || (await mayLive(folder))) return false
  await rm(folder, { recursive: true, force: true })
  return true
}

async function mayLive(folder: string): Promise<boolean> {
  const owner = parseOwner((await readIfThere(join(folder, OWNER_FILE))) ?? '')
  const idleMs = Date.now() - (await lastTouchedMs(folder))
  // Without a name on it, it is either just being made or was left half-made.
  if (owner === undefined) return idleMs < 60_000
  // Another machine or container, which cannot be looked into from here.
  if (owner.place !== ownOwner().place) return idleMs < FOREIGN_IDLE_MS
  // This process's own are in the set: another with its id is an earlier one.
  return owner.pid !== process.pid && isAlive(owner, 0)
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

/** When something last happened in a folder, file contents included; 0 when it is gone. */
async function lastTouchedMs(folder: string): Promise<number> {
  try {
    const paths = [folder, ...(await readdir(folder)).map((name) => join(folder, name))]
    const times = await Promise.all(paths.map(async (path) => (await lstat(path)).mtimeMs))
    return Math.max(...times)
  } catch (error) {
    if (isGone(error)) return 0
    throw error
  }
}

function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')
}
