import { type BigIntStats, type FSWatcher, watch } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { errnoOf, RequestError } from '../request-error.js'
import { Folder } from './folder.js'
import type { SandboxRoot } from './sandbox-root.js'

/** What can happen to something in a watched folder, in envd's words. */
export type WatchEventType = 'CREATE' | 'WRITE' | 'REMOVE' | 'RENAME' | 'CHMOD'

/** One thing that happened. */
export interface WatchEvent {
  readonly type: WatchEventType
  /** Relative to the watched folder. */
  readonly name: string
}

interface Watched {
  readonly watcher: FSWatcher
  readonly known: Map<string, BigIntStats>
}

interface Vanished {
  readonly name: string
  readonly timer: NodeJS.Timeout
}

/** A name that vanished was renamed when its file turns up under another within this time; otherwise it was removed. */
const RENAME_WINDOW_MS = 20

/** Reports changes in a folder of a sandbox and, if asked, in all folders below, also those made later. */
export class FolderWatcher {
  readonly #root: SandboxRoot
  readonly #path: string
  readonly #recursive: boolean
  readonly #onEvent: (event: WatchEvent) => void
  readonly #onError: (error: unknown) => void
  readonly #folders = new Map<string, Watched>()
  readonly #vanished = new Map<bigint, Vanished>()
  #work: Promise<void> = Promise.resolve()
  #closed = false

  private constructor(root: SandboxRoot, path: string, recursive: boolean, handlers: WatchHandlers) {
    this.#root = root
    this.#path = path
    this.#recursive = recursive
    this.#onEvent = handlers.onEvent
    this.#onError = handlers.onError
  }

  /** Starts watching; whatever happens after this has resolved is reported. */
  static async start(
    root: SandboxRoot,
    path: string,
    recursive: boolean,
    handlers: WatchHandlers,
  ): Promise<FolderWatcher> {
    const real = await root.at(path, {}, async ({ path: real, stat }) => {
      if (stat === undefined) throw new RequestError('not_found', `path '${path}' does not exist`)
      if (!stat.isDirectory()) throw new RequestError('invalid_argument', `path '${path}' is not a directory`)
      return real
    })
    const watcher = new FolderWatcher(root, real, recursive, handlers)
    try {
      await watcher.#watchFolder('', false)
    } catch (error) {
      watcher.close()
      throw error
    }
    return watcher
  }

  close(): void {
    this.#closed = true
    for (const { watcher } of this.#folders.values()) watcher.close()
    this.#folders.clear()
    for (const { timer } of this.#vanished.values()) clearTimeout(timer)
    this.#vanished.clear()
  }

  /** Watches a folder; `report` is for one that appeared, whose content nobody has been told of. */
  async #watchFolder(name: string, report: boolean): Promise<void> {
    const below: string[] = []
    await this.#root.at(`${this.#path}/${name}`, { follow: false }, async ({ at }) => {
      const folder = Folder.open(at)
      try {
        const watcher = watch(folder.at, (type, file) => this.#later(name, type, file))
        watcher.on('error', this.#onError)
        const known = new Map<string, BigIntStats>()
        this.#folders.set(name, { watcher, known })
        for (const file of await readdir(folder.at)) {
          const stat = await lstat(folder.child(file), { bigint: true }).catch(absent)
          if (stat === undefined || known.has(file)) continue
          known.set(file, stat)
          if (report) this.#report('CREATE', join(name, file))
          if (stat.isDirectory()) below.push(join(name, file))
        }
      } finally {
        folder.close()
      }
    })
    if (this.#recursive) for (const one of below) await this.#watchFolder(one, report).catch(gone)
  }

  /** One event after another: what each means depends on what was there before. */
  #later(folder: string, type: string, file: string | null): void {
    if (file === null) return
    this.#work = this.#work.then(() => this.#look(folder, type, file)).catch(this.#onError)
  }

  async #look(folder: string, type: string, file: string): Promise<void> {
    const watched = this.#folders.get(folder)
    if (watched === undefined || this.#closed) return
    const name = join(folder, file)
    const before = watched.known.get(file)
    const now = await this.#stat(name)
    if (now === undefined) {
      if (before !== undefined) this.#vanish(watched, folder, file, before)
      return
    }
    watched.known.set(file, now)
    if (before === undefined || before.ino !== now.ino) {
      this.#appear(name, now)
      if (now.isDirectory() && this.#recursive) await this.#watchFolder(name, true).catch(gone)
    } else if (type === 'change') {
      const onlyAttributes = before.ctimeNs !== now.ctimeNs && before.mtimeNs === now.mtimeNs
      this.#report(onlyAttributes ? 'CHMOD' : 'WRITE', name)
    }
  }

  #vanish(watched: Watched, folder: string, file: string, before: BigIntStats): void {
    const name = join(folder, file)
    watched.known.delete(file)
    for (const [below, { watcher }] of this.#folders) {
      if (below !== name && !below.startsWith(`${name}/`)) continue
      watcher.close()
      this.#folders.delete(below)
    }
    // In line with what has been noticed by then: looking at it may take longer than the window.
    const timer = setTimeout(() => {
      this.#work = this.#work.then(() => this.#giveUp(before.ino))
    }, RENAME_WINDOW_MS)
    this.#vanished.set(before.ino, { name, timer })
  }

  #giveUp(ino: bigint): void {
    const old = this.#vanished.get(ino)
    if (old === undefined) return
    this.#vanished.delete(ino)
    this.#report('REMOVE', old.name)
  }

  #appear(name: string, now: BigIntStats): void {
    const old = this.#vanished.get(now.ino)
    if (old !== undefined) {
      clearTimeout(old.timer)
      this.#vanished.delete(now.ino)
      this.#report('RENAME', old.name)
    }
    this.#report('CREATE', name)
  }

  #report(type: WatchEventType, name: string): void {
    if (!this.#closed) this.#onEvent({ type, name })
  }

  async #stat(name: string): Promise<BigIntStats | undefined> {
    try {
      return await this.#root.at(`${this.#path}/${name}`, { follow: false }, async ({ stat }) => stat)
    } catch (error) {
      gone(error)
      return undefined
    }
  }
}

/** Who hears of what. */
export interface WatchHandlers {
  onEvent(event: WatchEvent): void
  /** The watch cannot go on. */
  onError(error: unknown): void
}

function join(folder: string, file: string): string {
  return folder === '' ? file : `${folder}/${file}`
}

function absent(error: unknown): undefined {
  if (errnoOf(error) !== 'ENOENT') throw error
}

/** Passes over what was removed, or replaced by something else, while we were about to look at it. */
function gone(error: unknown): void {
  if (error instanceof RequestError && (error.code === 'not_found' || error.code === 'invalid_argument'))
    return
  throw error
}
