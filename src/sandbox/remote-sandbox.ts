import type { CallOptions } from '../call-options.js'

/** A file to be put into a sandbox. */
export interface SandboxFile {
  /** Absolute. Folders above it are made. */
  readonly path: string
  readonly data: string | Uint8Array
}

/** What lies in a folder. */
export interface FolderEntry {
  readonly name: string
  /** Neither a folder, nor a link, nor anything that is no file on a disk. */
  readonly isPlainFile: boolean
  readonly sizeBytes: number
}

/** How to start a command. */
export interface CommandOptions extends CallOptions {
  readonly cwd?: string | undefined
  readonly envs?: Readonly<Record<string, string>> | undefined
  /** Called in order; text as decoded by the SDK. */
  readonly onStdout?: ((text: string) => void) | undefined
  readonly onStderr?: ((text: string) => void) | undefined
  /** False where nobody asks the outcome for the output, which may be more than fits into memory. @default true */
  readonly keepsOutput?: boolean | undefined
  /** Ends the command when it takes longer; 0 means no limit. */
  readonly timeoutMs?: number | undefined
}

/** How a command ended and what it printed. */
export interface CommandOutcome {
  /** -1 when a signal ended it. */
  readonly exitCode: number
  /** Empty, as is the other, where {@link CommandOptions.keepsOutput} is false. */
  readonly stdout: string
  readonly stderr: string
}

/** A command in the background. */
export interface RunningCommand {
  readonly pid: number
  /** Resolves with its end whatever the exit code; rejects only when its end could not be seen. */
  wait(): Promise<CommandOutcome>
  /** Closes the connection; the command goes on. */
  disconnect(): Promise<void>
}

/** How to watch a folder. */
export interface WatchOptions extends CallOptions {
  /** Called once the watch has ended, by whatever: its connection does not outlive a pause of the sandbox. */
  readonly onEnd?: (() => void) | undefined
}

/** A sandbox as the conductor needs it. Every failure is a `ConductorError`; `SANDBOX_GONE` means that it no longer exists. */
export interface RemoteSandbox {
  readonly id: string
  /** All in one request. */
  writeFiles(files: readonly SandboxFile[], options?: CallOptions): Promise<void>
  /** Rejects with `NOT_FOUND` before the first byte. */
  openFile(path: string, options?: CallOptions): Promise<ReadableStream<Uint8Array>>
  /** What lies in a folder itself; undefined where there is no such folder. */
  listFolder(path: string, options?: CallOptions): Promise<readonly FolderEntry[] | undefined>
  /** Whether there is anything at a path. */
  exists(path: string, options?: CallOptions): Promise<boolean>
  /** Runs to the end, whatever the exit code. */
  run(command: string, options?: CommandOptions): Promise<CommandOutcome>
  /** Starts in the background. */
  start(command: string, options?: CommandOptions): Promise<RunningCommand>
  /** Calls back with the name of each file that appears or changes in a folder, until the returned function is called or the connection breaks. */
  watch(
    folder: string,
    onChange: (fileName: string) => void,
    options?: WatchOptions,
  ): Promise<() => Promise<void>>
  /** Wakes it when it is paused, and gives it at least so long from now, in milliseconds. */
  resume(timeoutMs: number, options?: CallOptions): Promise<void>
  /** Sets the time left from now, in milliseconds. */
  extend(timeoutMs: number, options?: CallOptions): Promise<void>
  /** Resolves false when it was already gone. */
  kill(options?: CallOptions): Promise<boolean>
}

/** What a new sandbox is made from. */
export interface CreateSandboxOptions extends CallOptions {
  readonly template?: string | undefined
  /** Time until it is paused, in milliseconds. */
  readonly timeoutMs: number
  readonly metadata: Readonly<Record<string, string>>
  readonly envs: Readonly<Record<string, string>>
  /** Volume names by mount path. */
  readonly volumeMounts?: Readonly<Record<string, string>> | undefined
  /** What it may connect to; without it, everything. */
  readonly network?: { readonly allowOut: readonly string[]; readonly denyOut: readonly string[] } | undefined
}

/** One line of a listing of sandboxes. */
export interface SandboxSummary {
  readonly id: string
  readonly state: 'running' | 'paused'
  readonly startedAt: Date
  readonly metadata: Readonly<Record<string, string>>
}

/** Where sandboxes come from. */
export interface SandboxProvider {
  create(options: CreateSandboxOptions): Promise<RemoteSandbox>
  /** Resumes it when it is paused; rejects with `SANDBOX_GONE` when it does not exist. */
  connect(sandboxId: string, timeoutMs: number, options?: CallOptions): Promise<RemoteSandbox>
  /** Resolves false when it was already gone. A paused one is not woken for it. */
  kill(sandboxId: string, options?: CallOptions): Promise<boolean>
  /** Running and paused ones whose metadata holds all the given pairs. */
  list(metadata: Readonly<Record<string, string>>, options?: CallOptions): AsyncIterable<SandboxSummary>
}
