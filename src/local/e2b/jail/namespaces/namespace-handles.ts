import { type FileHandle, open } from 'node:fs/promises'
import { Folder } from '../../files/folder.js'

/**
 * The namespaces and the root of a jail, held open: entering them by process number could meet another process that has got the
 * number since.
 */
export class NamespaceHandles {
  readonly #handles: readonly FileHandle[]
  readonly #root: Folder
  /** Options for nsenter(1) that lead into the jail as its root. */
  readonly enter: readonly string[]
  /** The user's own namespace, to be handed to a command. */
  readonly userFd: number
  /** Where the jail's files start. */
  readonly rootPath: string

  private constructor(root: Folder, handles: readonly [FileHandle, FileHandle, FileHandle, FileHandle]) {
    this.#root = root
    this.#handles = handles
    const [user, mnt, pid, innerUser] = handles
    const path = ({ fd }: FileHandle) => `/proc/${process.pid}/fd/${fd}`
    this.enter = [
      `--user=${path(user)}`,
      `--mount=${path(mnt)}`,
      `--pid=${path(pid)}`,
      '--preserve-credentials',
    ]
    this.userFd = innerUser.fd
    this.rootPath = root.at
  }

  /**
   * @param initPid process 1 of the jail, by its number on this machine
   * @param holderPid a process in the user's namespace, by its number in the jail
   */
  static async open(initPid: number, holderPid: number): Promise<NamespaceHandles> {
    const opened: FileHandle[] = []
    const root = await Folder.openTrusted(`/proc/${initPid}/root`)
    try {
      for (const path of [
        ...['user', 'mnt', 'pid'].map((kind) => `/proc/${initPid}/ns/${kind}`),
        root.child(`proc/${holderPid}/ns/user`),
      ]) {
        opened.push(await open(path))
      }
    } catch (error) {
      for (const handle of opened) await handle.close()
      await root.close()
      throw error
    }
    return new NamespaceHandles(root, opened as [FileHandle, FileHandle, FileHandle, FileHandle])
  }

  async close(): Promise<void> {
    await this.#root.close()
    for (const handle of this.#handles) await handle.close()
  }
}
