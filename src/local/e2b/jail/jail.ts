import type { Readable, Writable } from 'node:stream'
import type { SandboxRoot } from '../files/sandbox-root.js'

/** Who a command runs as. Both are the server's own user outside; inside they differ in name, number and home. */
export type SandboxUser = 'user' | 'root'

/** The home folder of each user. */
export const HOMES: Readonly<Record<SandboxUser, string>> = { user: '/home/user', root: '/root' }

/** A command to start, complete: nothing is inherited from the server. */
export interface CommandSpec {
  readonly file: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** Absolute, as the sandbox sees it; must exist. */
  readonly cwd: string
  readonly user: SandboxUser
  /** Whether someone will write to the command; otherwise it reads /dev/null. */
  readonly stdin: boolean
}

/** How a command ended: one of the two is set. */
export interface ExitStatus {
  readonly exitCode: number | null
  readonly signal: NodeJS.Signals | null
}

/** A started command. Its outputs flow only when read; reading slowly slows the command down. */
export interface JailedProcess {
  /** As the sandbox sees it. */
  readonly pid: number
  readonly stdin: Writable | undefined
  readonly stdout: Readable
  readonly stderr: Readable
  readonly exited: Promise<ExitStatus>
  /** Signals this process alone; false when it has ended. */
  signal(name: 'SIGTERM' | 'SIGKILL'): Promise<boolean>
}

/** What a sandbox's processes use right now. */
export interface Usage {
  readonly cpuSeconds: number
  readonly memoryBytes: number
}

/** A running sandbox's processes and files. */
export interface Jail {
  readonly root: SandboxRoot
  /** Resolves, never rejects, when the jail has died or been destroyed: from then on none of its processes exists. */
  readonly dead: Promise<void>
  start(spec: CommandSpec): Promise<JailedProcess>
  /** Stops every process where it is. */
  freeze(): Promise<void>
  thaw(): Promise<void>
  usage(): Promise<Usage>
  /** Ends every process, however deep; resolves when they are gone. The files stay. */
  destroy(): Promise<void>
}

/** A volume's folder on this machine, and where a sandbox sees it. */
export interface Mount {
  readonly source: string
  /** Absolute, normalised. */
  readonly path: string
}

/** What a jail is made from. */
export interface JailSpec {
  readonly sandboxId: string
  /** The sandbox's own files on this machine. */
  readonly rootFolder: string
  readonly mounts: readonly Mount[]
}

/** Makes jails of one kind. */
export interface JailMaker {
  readonly isolation: 'namespaces' | 'plain'
  /** Folders with commands that sandboxes should find first. */
  readonly path: string
  make(spec: JailSpec): Promise<Jail>
}
