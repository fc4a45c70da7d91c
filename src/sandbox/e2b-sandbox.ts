import {
  CommandExitError,
  type CommandHandle,
  FilesystemEventType,
  FileType,
  type Sandbox,
  SandboxNotFoundError,
} from 'e2b'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { mapStreamErrors } from '../streams/map-stream-errors.js'
import { isGone, mapSandboxError } from './map-sandbox-error.js'
import type {
  CommandOptions,
  CommandOutcome,
  FolderEntry,
  RemoteSandbox,
  RunningCommand,
  SandboxFile,
  WatchOptions,
} from './remote-sandbox.js'

/** What the SDK also says of a sandbox that is paused or gone; `SandboxNotFoundError` is what it makes of either before a command starts. */
const unsure: ReadonlySet<string> = new Set(['TIMEOUT', 'PROTOCOL', 'UNAVAILABLE'])
const ASK_TIMEOUT_MS = 10_000

/** The E2B SDK's sandbox behind our port. */
export class E2bSandbox implements RemoteSandbox {
  readonly #sandbox: Sandbox

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox
  }

  get id(): string {
    return this.#sandbox.sandboxId
  }

  async writeFiles(files: readonly SandboxFile[], { signal }: CallOptions = {}): Promise<void> {
    const entries = files.map(({ path, data }) => ({
      path,
      data: typeof data === 'string' ? data : toArrayBuffer(data),
    }))
    await this.#call('write files', signal, (options) => this.#sandbox.files.write(entries, options))
  }

  async openFile(path: string, { signal }: CallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const body = await this.#call(`read ${path}`, signal, (options) =>
      // The request's timeout ends with the answer's headers and then counts what is awaited of the body, anew for each chunk: a
      // large file is not cut by it, and one that never comes (a pipe, a file system of the worker's own) does not hold up for ever.
      this.#sandbox.files.read(path, { format: 'stream', ...options }),
    )
    return mapStreamErrors(body, (error) => this.#explain(error, `read ${path}`, signal))
  }

  async listFolder(path: string, { signal }: CallOptions = {}): Promise<readonly FolderEntry[] | undefined> {
    try {
      const found = await this.#call(`list ${path}`, signal, (options) =>
        this.#sandbox.files.list(path, options),
      )
      return found.map(({ name, type, size, symlinkTarget }) => ({
        name,
        isPlainFile: type === FileType.FILE && symlinkTarget === undefined,
        sizeBytes: size,
      }))
    } catch (error) {
      if (isConductorError(error) && error.code === 'NOT_FOUND') return undefined
      throw error
    }
  }

  async exists(path: string, { signal }: CallOptions = {}): Promise<boolean> {
    return this.#call(`look for ${path}`, signal, (options) => this.#sandbox.files.exists(path, options))
  }

  async run(command: string, options: CommandOptions = {}): Promise<CommandOutcome> {
    const running = await this.start(command, options)
    return running.wait()
  }

  async start(command: string, options: CommandOptions = {}): Promise<RunningCommand> {
    const { cwd, envs, onStdout, onStderr, keepsOutput = true, timeoutMs = 0, signal } = options
    const handle = await this.#call('start a command', signal, (call) =>
      this.#sandbox.commands.run(command, {
        background: true,
        timeoutMs,
        ...(cwd === undefined ? {} : { cwd }),
        ...(envs === undefined ? {} : { envs: { ...envs } }),
        ...(onStdout === undefined ? {} : { onStdout }),
        ...(onStderr === undefined ? {} : { onStderr }),
        ...call,
      }),
    )
    if (!keepsOutput) keepNothing(handle)
    return this.#running(handle, signal)
  }

  async watch(
    folder: string,
    onChange: (fileName: string) => void,
    { signal, onEnd }: WatchOptions = {},
  ): Promise<() => Promise<void>> {
    const handle = await this.#call(`watch ${folder}`, signal, (options) =>
      this.#sandbox.files.watchDir(
        folder,
        (event) => {
          if (event.type !== FilesystemEventType.REMOVE) onChange(event.name)
        },
        // A spool may lie on a volume, which E2B mounts over the network.
        { timeoutMs: 0, allowNetworkMounts: true, onExit: () => onEnd?.(), ...options },
      ),
    )
    return () => handle.stop()
  }

  async extend(timeoutMs: number, { signal }: CallOptions = {}): Promise<void> {
    await this.#call('extend the timeout', signal, (options) => this.#sandbox.setTimeout(timeoutMs, options))
  }

  async resume(timeoutMs: number, { signal }: CallOptions = {}): Promise<void> {
    await this.#call('resume', signal, (options) => this.#sandbox.connect({ timeoutMs, ...options }))
  }

  async kill({ signal }: CallOptions = {}): Promise<boolean> {
    return await this.#call('kill', signal, (options) => this.#sandbox.kill(options))
  }

  #running(handle: CommandHandle, signal: AbortSignal | undefined): RunningCommand {
    return {
      pid: handle.pid,
      wait: async () => {
        try {
          const { exitCode, stdout, stderr } = await handle.wait()
          return { exitCode, stdout, stderr }
        } catch (error) {
          if (error instanceof CommandExitError) {
            return { exitCode: error.exitCode, stdout: error.stdout, stderr: error.stderr }
          }
          throw await this.#explain(error, 'follow a command', signal)
        }
      },
      disconnect: () => handle.disconnect(),
    }
  }

  async #call<T>(
    doing: string,
    signal: AbortSignal | undefined,
    call: (options: { signal?: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    signal?.throwIfAborted()
    try {
      return await call(signal === undefined ? {} : { signal })
    } catch (error) {
      throw await this.#explain(error, doing, signal)
    }
  }

  /** The SDK says "timeout" or nothing certain when a sandbox has gone away during a call; asking once more tells the two apart. */
  async #explain(error: unknown, doing: string, signal: AbortSignal | undefined): Promise<unknown> {
    const mapped = notForCertain(mapSandboxError(error, `${doing} in sandbox ${this.id}`, signal))
    if (!isConductorError(mapped) || !unsure.has(mapped.code)) return mapped
    const requestTimeoutMs = ASK_TIMEOUT_MS
    try {
      if (await this.#sandbox.isRunning({ requestTimeoutMs })) return mapped
      // Only the control plane knows a paused sandbox from one that is gone.
      await this.#sandbox.getInfo({ requestTimeoutMs })
    } catch (asked) {
      // Where even that could not be found out, what is known stays what the call itself said.
      if (!(asked instanceof SandboxNotFoundError)) return mapped
      return new ConductorError('SANDBOX_GONE', `${doing}: sandbox ${this.id} no longer exists`, {
        cause: error,
      })
    }
    return new ConductorError('SANDBOX_PAUSED', `${doing}: sandbox ${this.id} is paused`, {
      retryable: true,
      cause: error,
    })
  }
}

/** A gateway that could not reach it for a moment is no proof that it is gone: only the control plane, asked afterwards, is. */
function notForCertain(error: unknown): unknown {
  if (!isGone(error)) return error
  return new ConductorError('UNAVAILABLE', error.message, { retryable: true, cause: error.cause })
}

/**
 * Has a handle forget what its command prints: the SDK adds all of it to one string, up to the longest that there can be, as long
 * as the command runs. There is no option for it; where the fields had other names, it would do nothing.
 */
function keepNothing(handle: CommandHandle): void {
  for (const field of ['_stdout', '_stderr']) {
    Object.defineProperty(handle, field, { get: () => '', set: () => {} })
  }
}

/** What the SDK takes; a copy only of a view into something larger, since the persister goes into every sandbox. */
function toArrayBuffer(data: Uint8Array): ArrayBuffer {
  const { buffer, byteLength } = data
  return buffer instanceof ArrayBuffer && buffer.byteLength === byteLength
    ? buffer
    : new Uint8Array(data).buffer
}
