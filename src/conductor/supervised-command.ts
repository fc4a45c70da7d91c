import { setTimeout as delay } from 'node:timers/promises'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { parseExitRecord } from '../protocol/parse.js'
import { RUN_FILES, WORKER_FILES, workerFolder } from '../protocol/spool-layout.js'
import { quote } from '../sandbox/quote.js'
import type { CommandOutcome, RemoteSandbox, RunningCommand } from '../sandbox/remote-sandbox.js'
import { readLimited } from '../sandbox/sandbox-files.js'
import { LEASE_MS } from './lease.js'

/** How often a broken connection to a command is taken up again before its end counts as unseen. */
const MAX_RECONNECTS = 5
const RECONNECT_PAUSE_MS = 500
/** The supervisor's own time to write down an exit after it killed its command. */
const SUPERVISOR_MARGIN_MS = 5_000

/** What to run, and for whom. */
export interface CommandSpec {
  readonly taskId: string
  readonly runId: string
  readonly localDir: string
  readonly command: string
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  /** Persisted by the supervisor when the command ends. */
  readonly outputs: readonly string[]
  /** Between SIGTERM and SIGKILL when it is stopped. */
  readonly graceMs: number
  readonly onStdout: (text: string) => void
  readonly onStderr: (text: string) => void
}

/** How a command of a worker ended and what it printed. */
export interface RunResult {
  /** Numbers the worker's commands from 1. */
  readonly runId: string
  /** Null when a signal ended it. */
  readonly exitCode: number | null
  /** For example `SIGKILL`; null when it exited by itself, or, without an exit code, when nobody saw which. */
  readonly signal: string | null
  /** All it printed; kept in memory. */
  readonly stdout: string
  readonly stderr: string
}

/** A command that runs under the persister's supervisor, which keeps its output and exit in the worker's folder whoever watches. */
export class SupervisedCommand {
  readonly runId: string
  /** Settles when the command has ended or its end can no longer be seen (`SANDBOX_GONE`, `UNAVAILABLE`). */
  readonly ended: Promise<RunResult>
  readonly #sandbox: RemoteSandbox
  readonly #spec: CommandSpec
  readonly #pid: number

  private constructor(sandbox: RemoteSandbox, spec: CommandSpec, running: RunningCommand) {
    this.runId = spec.runId
    this.#sandbox = sandbox
    this.#spec = spec
    this.#pid = running.pid
    this.ended = this.#follow(running)
    // Whoever awaits it hears of a failure; nobody may be awaiting it yet.
    this.ended.catch(() => {})
  }

  /** Resolves once the command has started. */
  static async start(
    sandbox: RemoteSandbox,
    spec: CommandSpec,
    options: CallOptions = {},
  ): Promise<SupervisedCommand> {
    const running = await sandbox.start(commandLine(spec), {
      cwd: spec.cwd,
      envs: spec.env,
      onStdout: spec.onStdout,
      onStderr: spec.onStderr,
      signal: options.signal,
    })
    return new SupervisedCommand(sandbox, spec, running)
  }

  /** Asks the command to end, kills it after its grace, and resolves when it has ended. */
  async stop(options: CallOptions = {}): Promise<void> {
    const waited = new AbortController()
    const ended = this.ended.then(
      () => true,
      () => true,
    )
    try {
      await this.#sandbox.run(`kill -TERM ${this.#pid} 2>/dev/null; true`, options)
      const limitMs = this.#spec.graceMs + SUPERVISOR_MARGIN_MS
      const late = delay(limitMs, false, { signal: waited.signal, ref: true }).catch(() => false)
      if (await Promise.race([ended, late])) return
      await this.#sandbox.run(`kill -KILL ${this.#pid} 2>/dev/null; true`, options)
      await ended
    } finally {
      waited.abort()
    }
  }

  async #follow(first: RunningCommand): Promise<RunResult> {
    let running = first
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#complete(await running.wait())
      } catch (error) {
        if (!isConductorError(error) || error.code === 'SANDBOX_GONE' || attempt === MAX_RECONNECTS)
          throw error
        await delay(RECONNECT_PAUSE_MS * attempt)
        try {
          const { onStdout, onStderr } = this.#spec
          if (error.code === 'SANDBOX_PAUSED') await this.#sandbox.resume(LEASE_MS)
          running = await this.#sandbox.reconnect(this.#pid, { onStdout, onStderr })
        } catch (again) {
          if (!isConductorError(again) || again.code !== 'NOT_FOUND') throw again
          // It ended while nobody was connected; the supervisor wrote down how.
          return await this.#complete({ exitCode: -1, stdout: '', stderr: '' })
        }
      }
    }
  }

  /** A shell's status above 128 may be a signal or the command's own word for it; the exit record knows. */
  async #complete({ exitCode, stdout, stderr }: CommandOutcome): Promise<RunResult> {
    const { runId } = this
    if (exitCode >= 0 && exitCode <= 128) return { runId, exitCode, signal: null, stdout, stderr }
    const path = `${workerFolder(this.#spec.localDir, this.#spec.taskId)}/${WORKER_FILES.runs}/${runId}/${RUN_FILES.exit}`
    try {
      const record = parseExitRecord((await readLimited(await this.#sandbox.openFile(path))) ?? '')
      return { runId, exitCode: record.code, signal: record.signal, stdout, stderr }
    } catch (error) {
      if (!isConductorError(error) || (error.code !== 'NOT_FOUND' && error.code !== 'PROTOCOL')) throw error
      // The supervisor itself was killed before it could write; by which signal, nobody knows.
      if (exitCode === -1) return { runId, exitCode: null, signal: null, stdout, stderr }
      throw new ConductorError('COMMAND_FAILED', `the command's end was not recorded (status ${exitCode})`, {
        cause: error,
      })
    }
  }
}

function commandLine(spec: CommandSpec): string {
  const folder = workerFolder(spec.localDir, spec.taskId)
  const bin = `${folder}/${WORKER_FILES.bin}`
  const words = [
    'sh',
    `${bin}/persist-result`,
    'run',
    '--run-id',
    spec.runId,
    '--task-id',
    spec.taskId,
    '--grace',
    `${Math.max(1, spec.graceMs)}ms`,
    ...spec.outputs.flatMap((path) => ['--output', path]),
    '--',
    '/bin/bash',
    '-c',
    spec.command,
  ]
  // E2B writes files as 0644: the tools must be executable, and the grant is nobody else's business.
  const modes = `chmod 755 ${quote(bin)}/*; chmod 600 ${quote(`${folder}/${WORKER_FILES.grant}`)} 2>/dev/null`
  return `${modes}; exec ${words.map(quote).join(' ')}`
}
