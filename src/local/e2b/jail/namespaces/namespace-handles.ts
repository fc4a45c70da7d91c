import { type FileHandle, open } from 'node:fs/promises'
import { Folder } from '../../files/folder.js'
import type { SandboxUser } from '../jail.js'

/** Processes of a jail that has just started. */
export interface JailProcesses {
  /** Outside the jail, in the user namespace that made it; by its number on this machine. */
  readonly parent: number
  /** Process 1 of the jail, in the namespace where one is root; by its number on this machine. */
  readonly init: number
  /** In the user's own namespace; by its number in the jail. */
  readonly holder: number
}

interface Handles {
  readonly outer: FileHandle
  readonly pid: FileHandle
  readonly mount: FileHandle
  readonly root: FileHandle
  readonly user: FileHandle
}

/**
 * The namespaces and the root of a jail, held open: entering them by process number could meet another process that has got the
 * number since.
 */
export class NamespaceHandles {
  readonly #folder: Folder
  readonly #handles: Handles

  private constructor(folder: Folder, handles: Handles) {
    this.#folder = folder
    this.#handles = handles
  }

  static async open({ parent, init, holder }: JailProcesses): Promise<NamespaceHandles> {
    const folder = Folder.openTrusted(`/proc/${init}/root`)
    const opened: FileHandle[] = []
    const openNext = async (path: string) => {
      const handle = await open(path)
      opened.push(handle)
      return handle
    }
    try {
      return new NamespaceHandles(folder, {
        outer: await openNext(`/proc/${parent}/ns/user`),
        pid: await openNext(`/proc/${init}/ns/pid`),
        mount: await openNext(`/proc/${init}/ns/mnt`),
        root: await openNext(`/proc/${init}/ns/user`),
        user: await openNext(folder.child(`proc/${holder}/ns/user`)),
      })
    } catch (error) {
      for (const handle of opened) await handle.close()
      folder.close()
      throw error
    }
  }

  /** Where the jail's files start. */
  get rootPath(): string {
    return this.#folder.at
  }

  /**
   * Options for nsenter(1) that lead among the jail's processes. Only the namespace that made that of the processes may lead there;
   * from it the way is open to the jail's own two.
   */
  get toProcesses(): readonly string[] {
    const path = ({ fd }: FileHandle) => `/proc/${process.pid}/fd/${fd}`
    return [
      `--user=${path(this.#handles.outer)}`,
      `--pid=${path(this.#handles.pid)}`,
      '--preserve-credentials',
    ]
  }

  /** Options for a second nsenter(1), which leads to the jail's files, given what {@link inherit} names. */
  static readonly toFiles = ['--user=/proc/self/fd/4', '--mount=/proc/self/fd/5', '--preserve-credentials']

  /** Descriptors for a command to have as 4 and 5 on its way to the files. */
  inherit(user: SandboxUser): readonly number[] {
    return [this.#handles[user].fd, this.#handles.mount.fd]
  }

  async close(): Promise<void> {
    this.#folder.close()
    for (const handle of Object.values<FileHandle>({ ...this.#handles })) await handle.close()
  }
}
