import { closeSync, constants, openSync } from 'node:fs'

const LINUX = process.platform === 'linux'
/** Linux's O_PATH, which node:fs does not name: a handle to walk from, without read permission. */
const O_PATH = 0o10000000
const OPEN_FOLDER = LINUX
  ? O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW
  : constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

/**
 * An opened folder to reach children through.
 * On Linux a child's path goes through `/proc/self/fd`, which is openat(2) in all but name: whatever a sandbox renames or links
 * meanwhile, the child is looked up in exactly this folder. Elsewhere the path is the real one and a swap in between is not noticed.
 *
 * All of this is done at once: a lookup takes the system microseconds, and passing it to a thread and back ten times as long.
 */
export class Folder {
  readonly #fd: number
  /** A path that leads to the folder as long as it is open. */
  readonly at: string

  private constructor(fd: number, path: string) {
    this.#fd = fd
    this.at = LINUX ? `/proc/self/fd/${fd}` : path
  }

  /** Opens a folder; throws ENOTDIR or ELOOP when it is anything else, also a link to a folder. */
  static open(path: string): Folder {
    return new Folder(openSync(path, OPEN_FOLDER), path)
  }

  /** Opens a folder the server itself chose, through links where there are any. */
  static openTrusted(path: string): Folder {
    return new Folder(openSync(path, OPEN_FOLDER & ~constants.O_NOFOLLOW), path)
  }

  child(name: string): string {
    return `${this.at}/${name}`
  }

  close(): void {
    closeSync(this.#fd)
  }
}
