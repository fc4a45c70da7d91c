import { createHash, randomBytes } from 'node:crypto'
import { type FileHandle, lstat, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { isAlive, ownOwner } from '../files/owner.js'
import type { BodyFacts } from '../stores/result-store.js'
import { writeAll } from '../streams/write-all.js'
import { DigestCheck } from './verify.js'

/** Names that unfinished files have: what they will be, what they are of, and whose they are. */
const partPattern = /^\.([0-9a-f]{16})\.([0-9a-f]{16})\.(\d{1,10})-(\d*)-([0-9a-f]{8})\.[0-9a-f]{8}\.part$/
const READ_BYTES = 1 << 20
/** What is written in one go: most results are no larger, and each call of the file system costs more than its bytes. */
const WRITE_BYTES = 1 << 20
/** How long bytes of a slow source wait for more: what has come shall outlive this process. */
const WRITE_AFTER_MS = 50
/** How much may wait for the disk before the source has to. */
const MAX_WAITING_BYTES = 2 * WRITE_BYTES

/** Unfinished files that this process is writing to. */
const active = new Set<string>()

function short(text: string, digits = 16): string {
  return createHash('sha256').update(text).digest('hex').slice(0, digits)
}

/**
 * A file on its way to its name, kept when a read breaks off so that a later call, also of another process, goes on with it.
 * It has one writer: its name says which, and whoever takes over that of a process that has ended renames it, which only one
 * can do. What is of another result, or of another version of it, is removed.
 */
export class PartFile {
  readonly #path: string
  readonly #target: string
  readonly #expected: BodyFacts | undefined
  readonly #file: FileHandle
  #check: DigestCheck | undefined
  #size = 0
  /** The last bytes, whose writing has not begun. */
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #writtenBytes = 0
  #writing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #failure: unknown

  private constructor(
    path: string,
    target: string,
    expected: BodyFacts | undefined,
    file: FileHandle,
    check: DigestCheck | undefined,
  ) {
    this.#path = path
    this.#target = target
    this.#expected = expected
    this.#file = file
    this.#check = check
  }

  /**
   * Goes on with what an earlier call left for this target, or begins; `siblings` are the names in the target's folder. Without a
   * description nothing can be gone on with; with one that has no digest it rejects with `INTEGRITY`.
   */
  static async open(
    target: string,
    expected: BodyFacts | undefined,
    siblings: readonly string[],
  ): Promise<PartFile> {
    const check = checkFor(expected)
    const whole = resolve(target)
    const folder = dirname(whole)
    const targetId = short(basename(whole))
    // Without a digest no two reads are known to be of the same bytes.
    const identity = expected === undefined ? randomBytes(8).toString('hex') : short(identityOf(expected))
    const { pid, start, place } = ownOwner()
    const suffix = randomBytes(4).toString('hex')
    const path = join(folder, `.${targetId}.${identity}.${pid}-${start}-${short(place, 8)}.${suffix}.part`)
    active.add(path)
    try {
      // Beside the target, since a rename does not cross file systems.
      const taken = await takeOver(folder, siblings, { targetId, identity }, path)
      const file = await open(path, taken ? 'r+' : 'wx+')
      const part = new PartFile(path, whole, expected, file, check)
      try {
        if (taken) await part.#readBack()
      } catch (error) {
        await file.close()
        throw error
      }
      return part
    } catch (error) {
      active.delete(path)
      throw error
    }
  }

  /** Bytes that it holds. */
  get size(): number {
    return this.#size
  }

  /** Takes bytes that go to the disk in the background, many small chunks at once; a write that failed is told by a later call. */
  async append(chunk: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    this.#check?.update(chunk)
    this.#waiting.push(chunk)
    this.#waitingBytes += chunk.length
    this.#size += chunk.length
    if (this.#waitingBytes >= WRITE_BYTES) this.#startWriting()
    else this.#writeSoon()
    if (this.#waitingBytes >= MAX_WAITING_BYTES) await this.#writing
  }

  /** Begins again from nothing. */
  async reset(): Promise<void> {
    await this.#written()
    await this.#file.truncate(0)
    this.#size = 0
    this.#writtenBytes = 0
    this.#check = checkFor(this.#expected)
  }

  /** Throws `INTEGRITY` unless all bytes are there and the right ones; ask once between resets. */
  verify(where: string): void {
    this.#check?.finish(where)
  }

  /** Has its bytes turned into what is to stand there, once they are verified; nobody can go on with it from then on. */
  async convert(change: (file: FileHandle, size: number) => Promise<number>): Promise<void> {
    await this.#written()
    this.#size = await change(this.#file, this.#size)
  }

  /** Puts it in its place, whole and on the disk. */
  async finish(): Promise<void> {
    await this.#written()
    await this.#file.sync()
    await this.#file.close()
    await rename(this.#path, this.#target)
    active.delete(this.#path)
  }

  /** Leaves it for a later call to go on with, if there is anything in it that one could. */
  async leave(): Promise<void> {
    if (this.#size === 0 || this.#expected === undefined) return this.discard()
    // What cannot be written is fetched again; the failure that ended the read is the one to be told.
    await this.#written().catch(() => undefined)
    await this.#file.close()
    active.delete(this.#path)
  }

  async discard(): Promise<void> {
    await this.#writing
    clearTimeout(this.#timer)
    this.#waiting = []
    await this.#file.close()
    await rm(this.#path, { force: true })
    active.delete(this.#path)
  }

  #writeSoon(): void {
    this.#timer ??= setTimeout(() => this.#startWriting(), WRITE_AFTER_MS).unref()
  }

  #startWriting(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing ??= this.#writeWaiting()
  }

  async #writeWaiting(): Promise<void> {
    try {
      do {
        const chunks = this.#waiting
        const sizeBytes = this.#waitingBytes
        this.#waiting = []
        this.#waitingBytes = 0
        await writeAll(this.#file, chunks, this.#writtenBytes)
        this.#writtenBytes += sizeBytes
      } while (this.#waitingBytes >= WRITE_BYTES)
    } catch (error) {
      this.#failure = error
    } finally {
      this.#writing = undefined
      if (this.#waiting.length > 0 && this.#failure === undefined) this.#writeSoon()
    }
  }

  /** Writes all that waits. */
  async #written(): Promise<void> {
    await this.#writing
    if (this.#failure === undefined && this.#waiting.length > 0) this.#startWriting()
    await this.#writing
    clearTimeout(this.#timer)
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Takes in what is there; more than there can be is nothing of ours. */
  async #readBack(): Promise<void> {
    const { size } = await this.#file.stat()
    if (size > (this.#expected?.size ?? 0)) return this.reset()
    const buffer = Buffer.allocUnsafe(READ_BYTES)
    for (;;) {
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.#size)
      if (bytesRead === 0) return
      this.#check?.update(buffer.subarray(0, bytesRead))
      this.#size += bytesRead
      this.#writtenBytes += bytesRead
    }
  }
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

function checkFor(expected: BodyFacts | undefined): DigestCheck | undefined {
  return expected === undefined ? undefined : new DigestCheck(expected)
}

function identityOf({ key, size, sha256 }: BodyFacts): string {
  return JSON.stringify([key, size, sha256])
}

/** Makes the largest of what nobody living writes to this process's own; removes the rest. False when there is none. */
async function takeOver(
  folder: string,
  names: readonly string[],
  { targetId, identity }: { readonly targetId: string; readonly identity: string },
  mine: string,
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
  const isHere = owner.place === short(self.place, 8)
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
