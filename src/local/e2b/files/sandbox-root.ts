import { type BigIntStats, lstatSync, mkdirSync, readlinkSync } from 'node:fs'
import { errnoOf, explainFileError, RequestError } from '../request-error.js'
import { Folder } from './folder.js'

const MAX_LINKS = 40
const MAX_PATH_BYTES = 4096

/** Where a path led: a name in an open folder, and what lies there, if anything. */
export interface Place {
  /** Reaches the thing itself; never follow a link at its end. */
  readonly at: string
  /** Absolute, as the sandbox sees it, with every link on the way resolved. */
  readonly path: string
  readonly stat: BigIntStats | undefined
}

/** How far to go. */
export interface WalkOptions {
  /** Follow a link in the last position too. @default true */
  readonly follow?: boolean
  /** Make the folders on the way that are missing. @default false */
  readonly makeParents?: boolean
}

/** Which folders a path can lead into besides the root itself. */
export interface RootOptions {
  /** Folders that appear at a path in the sandbox without being mounted there. */
  readonly mounts?: ReadonlyMap<string, string>
}

interface Step {
  readonly folder: Folder
  readonly name: string
}

/**
 * The file system of one sandbox as seen from outside. Every path, and every link a sandbox has planted on it, is resolved against
 * the sandbox's root, one component at a time; nothing outside the root can be reached.
 */
export class SandboxRoot {
  readonly #start: string
  /** Links to these folders, written by processes that see real paths, are links to paths in the sandbox. */
  readonly #aliases: readonly (readonly [real: string, path: string])[]
  readonly #mounts: ReadonlyMap<string, string>

  /** @param start the root's folder on this machine */
  constructor(start: string, { mounts = new Map() }: RootOptions = {}) {
    this.#start = start
    this.#mounts = mounts
    this.#aliases = [...[...mounts].map(([path, real]) => [real, path] as const), [start, '']]
  }

  /** Calls `use` with the place while its folder is held open. File errors name the path the caller gave. */
  async at<T>(path: string, options: WalkOptions, use: (place: Place) => Promise<T>): Promise<T> {
    if (path.includes('\0')) throw new RequestError('invalid_argument', 'a path cannot contain a null byte')
    if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
      throw new RequestError('invalid_argument', `a path is at most ${MAX_PATH_BYTES} bytes`)
    }
    const trail: Step[] = []
    try {
      trail.push({ folder: Folder.openTrusted(this.#start), name: '' })
      return await use(this.#walk(trail, path, options))
    } catch (error) {
      throw explainFileError(error, path)
    } finally {
      for (const { folder } of trail) folder.close()
    }
  }

  #walk(trail: Step[], path: string, { follow = true, makeParents = false }: WalkOptions): Place {
    const todo = split(this.#unalias(path))
    let links = 0
    for (let name = todo.shift(); name !== undefined; name = todo.shift()) {
      if (name === '..') {
        if (trail.length > 1) trail.pop()?.folder.close()
        continue
      }
      const { folder } = trail.at(-1) as Step
      const at = folder.child(name)
      const seen = `${pathOf(trail)}/${name}`
      const mounted = this.#mounts.get(seen)
      if (mounted !== undefined) {
        trail.push({ folder: Folder.openTrusted(mounted), name })
        continue
      }
      const last = todo.length === 0
      let stat = lstatOrAbsent(at)
      if (stat?.isSymbolicLink() === true && (follow || !last)) {
        links += 1
        if (links > MAX_LINKS) throw new RequestError('invalid_argument', `'${path}': too many links`)
        const target = readlinkSync(at)
        if (target.startsWith('/')) closeAllButFirst(trail)
        todo.unshift(...split(this.#unalias(target)))
        continue
      }
      if (last) return { at, path: seen, stat }
      if (stat === undefined) {
        if (!makeParents) throw new RequestError('not_found', `path '${path}' does not exist`)
        makeFolder(at)
        stat = lstatOrAbsent(at)
      }
      if (makeParents && stat?.isDirectory() === false) {
        throw new RequestError('invalid_argument', `'${path}': '${seen}' is not a folder`)
      }
      trail.push({ folder: Folder.open(at), name })
    }
    const { folder } = trail.at(-1) as Step
    const at = folder.child('.')
    return { at, path: pathOf(trail) || '/', stat: lstatSync(at, { bigint: true }) }
  }

  #unalias(path: string): string {
    for (const [real, inside] of this.#aliases) {
      if (path === real || path.startsWith(`${real}/`)) return `${inside}${path.slice(real.length)}` || '/'
    }
    return path
  }
}

function split(path: string): string[] {
  return path.split('/').filter((name) => name !== '' && name !== '.')
}

function pathOf(trail: readonly Step[]): string {
  return trail.map(({ name }) => name).join('/')
}

function closeAllButFirst(trail: Step[]): void {
  for (const { folder } of trail.splice(1)) folder.close()
}

/** What lies at a path, a link itself included; undefined when nothing does. */
function lstatOrAbsent(at: string): BigIntStats | undefined {
  try {
    return lstatSync(at, { bigint: true })
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function makeFolder(at: string): void {
  try {
    mkdirSync(at, 0o755)
  } catch (error) {
    // Someone else made it first, which is what was wanted.
    if (errnoOf(error) !== 'EEXIST') throw error
  }
}
