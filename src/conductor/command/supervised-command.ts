import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import { parseExitRecord } from '../../protocol/parse.js'
import { RUN_FILES, runFolder } from '../../protocol/spool-layout.js'
import type { RemoteSandbox, RunningCommand } from '../../sandbox/remote-sandbox.js'
import { runPlainly } from '../../sandbox/run-plainly.js'
import { readLimited } from '../../sandbox/sandbox-files.js'
import { untilAborted } from '../../until-aborted.js'
import { LEASE_MS } from '../lease.js'
import { commandLine, type ShellCommand } from './command-line.js'
import { CommandOutput, type OutputSpec } from './command-output.js'
import type { LogOffsets } from './follow-log.js'
import { inspectWorker } from './inspect.js'
import { streamMark } from './output-stream.js'
import { FENCED_STATUS, hasBegun, isTaken, type RunStart, TAKEN_STATUS } from './run-fence.js'

/** How often a broken connection to a command is taken up again before its end counts as unseen. */
const MAX_RECONNECTS = 5
const RECONNECT_PAUSE_MS = 500
const MAX_STARTS = 3
const FROM_START: LogOffsets = { stdout: 0, stderr: 0 }
/** What E2B says of a process that a signal ended, and we of one whose end nobody saw. */
const UNSEEN = { exitCode: -1 } as const
/** The supervisor's own time to write down an exit after it killed its command. */
const SUPERVISOR_MARGIN_MS = 5_000

/** What to run, and for whom. */
export interface CommandSpec extends ShellCommand, OutputSpec {
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
}

/** How a command of a worker ended and what it printed. */
export interface RunResult {
  /** Numbers the worker's commands from 1. */
  readonly runId: string
  /** Null when a signal ended it, and when its end was not recorded. */
  readonly exitCode: number | null
  /** For example `SIGKILL`; null when it exited by itself, or, without an exit code, when nobody saw which. */
  readonly signal: string | null
  /**
   * Status with which what watches the command ended without a record of the command's own end, where that was seen: it may
   * not have begun the command at all, or had no room to write.
   */
  readonly supervisorStatus?: number | undefined
  /** What it printed; of more than 16 Mi characters the first and the last half as many, with a line between that says so. */
  readonly stdout: string
  readonly stderr: string
}

/** A command that runs under the persister's supervisor, which keeps its output and exit in the worker's folder whoever watches. */
export class SupervisedCommand {
  readonly runId: string
  /** Settles when the command has ended, its end can no longer be seen (`SANDBOX_GONE`, `UNAVAILABLE`), or it did not begin (`EXISTS`). */
  readonly ended: Promise<RunResult>
  readonly #sandbox: RemoteSandbox
  readonly #spec: CommandSpec
  readonly #output: CommandOutput
  readonly #pid: number | undefined
  readonly #left = new AbortController()
  readonly #started: Started | undefined

  private constructor(
    sandbox: RemoteSandbox,
    spec: CommandSpec,
    pid: number | undefined,
    output: CommandOutput,
    started?: Started,
  ) {
    this.runId = spec.runId
    this.#sandbox = sandbox
    this.#spec = spec
    this.#pid = pid
    this.#output = output
    this.#started = started
    this.ended = this.#follow(started)
    // Whoever awaits it hears of a failure; nobody may be awaiting it yet.
    this.ended.catch(() => {})
  }

  /** Resolves once the command has started. An answer that was lost on the way starts nothing twice. */
  static async start(
    sandbox: RemoteSandbox,
    spec: CommandSpec,
    options: CallOptions = {},
  ): Promise<SupervisedCommand> {
    const start = { ...spec, startId: randomBytes(8).toString('hex') }
    const output = new CommandOutput(sandbox, spec, FROM_START, streamMark(start.startId))
    for (let attempt = 1; ; attempt++) {
      try {
        const running = await sandbox.start(commandLine(start, sandbox.id), {
          cwd: spec.cwd,
          envs: spec.env,
          ...output.listeners,
          keepsOutput: false,
          signal: options.signal,
        })
        return new SupervisedCommand(sandbox, spec, running.pid, output, { running, start })
      } catch (error) {
        if (!isConductorError(error) || !error.retryable || attempt === MAX_STARTS) throw error
        const { lastRun, pid } = await inspectWorker(sandbox, spec, options)
        if (String(lastRun) !== spec.runId) continue
        if (await isTaken(sandbox, start, options)) throw taken(spec)
        return SupervisedCommand.resume(sandbox, spec, pid)
      }
    }
  }

  /** Takes up a command that somebody else started, and what it has printed since the given bytes. */
  static resume(
    sandbox: RemoteSandbox,
    spec: CommandSpec,
    pid: number | undefined,
    from: LogOffsets = FROM_START,
  ): SupervisedCommand {
    return new SupervisedCommand(sandbox, spec, pid, new CommandOutput(sandbox, spec, from))
  }

  /** Whether nothing of it ran any more when it was taken up. */
  get wasOver(): boolean {
    return this.#pid === undefined
  }

  /** Asks the command to end, kills it after its grace, and resolves when it has ended; given up before, it may end yet. */
  async stop(options: CallOptions = {}): Promise<void> {
    const { signal } = options
    if (this.#pid === undefined) return void (await untilAborted(this.ended, signal))
    const waited = new AbortController()
    const ended = this.ended.then(
      () => true,
      () => true,
    )
    try {
      await this.#send('TERM', options)
      const limitMs = this.#spec.graceMs + SUPERVISOR_MARGIN_MS
      const late = delay(limitMs, false, { signal: waited.signal, ref: true }).catch(() => false)
      if (await untilAborted(Promise.race([ended, late]), signal)) return
      await this.#send('KILL', options)
      await untilAborted(ended, signal)
    } finally {
      waited.abort()
    }
  }

  /** Wakes the sandbox where it is paused, which may have happened just now. */
  async #send(name: 'TERM' | 'KILL', options: CallOptions): Promise<void> {
    const send = (): Promise<unknown> =>
      runPlainly(this.#sandbox, `kill -${name} ${this.#pid} 2>/dev/null; true`, options)
    try {
      await send()
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'SANDBOX_PAUSED') throw error
      await this.#sandbox.resume(LEASE_MS, options)
      await send()
    }
  }

  /** Sees no more of the command, whatever becomes of it; `ended` rejects with the reason. */
  async leave(
    reason = new ConductorError('CLOSED', `run ${this.runId} of ${this.#spec.taskId} was left to itself`),
  ): Promise<void> {
    this.#left.abort(reason)
    await this.#started?.running.disconnect()
  }

  /** How far its output was told; of what was left before its end. Where its sandbox cannot be asked, the least that it can be. */
  async offsets(): Promise<LogOffsets> {
    return this.#output.offsets()
  }

  /** Stops the command when its caller gives it up. */
  stopOnAbort(signal: AbortSignal): void {
    const stop = (): void => {
      // A command that cannot be stopped is one whose end cannot be seen, which whoever awaits it hears.
      this.stop().catch(() => {})
    }
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
    const forget = (): void => signal.removeEventListener('abort', stop)
    this.ended.then(forget, forget)
  }

  /** Over the live connection while there is one, and once that broke by the logs that the supervisor keeps. */
  async #follow(started: Started | undefined): Promise<RunResult> {
    const running = started?.running
    let exitCode: number = UNSEEN.exitCode
    let isOwn = started === undefined
    let isFenced = false
    for (let attempt = 0; ; attempt++) {
      try {
        if (attempt === 0 && running !== undefined) {
          exitCode = (await running.wait()).exitCode
          this.#output.endText()
        }
        // The command's own status may be the same.
        isOwn ||= exitCode !== TAKEN_STATUS || !(await this.#isTaken())
        if (!isOwn) throw taken(this.#spec)
        // An earlier request of this very command has come through after all, or another conductor was about to finish the worker.
        if (exitCode === FENCED_STATUS) {
          isFenced = true
          exitCode = UNSEEN.exitCode
        } else if (attempt === 0 && running !== undefined) return await this.#complete(exitCode)
        await this.#output.readLogs({ signal: this.#left.signal })
        const result = await this.#complete(exitCode)
        if (isFenced && result.exitCode === null && result.signal === null) await this.#assertBegun()
        return result
      } catch (error) {
        this.#left.signal.throwIfAborted()
        if (!isConductorError(error) || attempt === MAX_RECONNECTS) throw error
        if (error.code === 'SANDBOX_GONE' || error.code === 'EXISTS') throw error
        await delay(RECONNECT_PAUSE_MS * attempt)
        if (error.code === 'SANDBOX_PAUSED') await this.#sandbox.resume(LEASE_MS)
      }
    }
  }

  async #isTaken(): Promise<boolean> {
    const start = this.#started?.start
    return start !== undefined && isTaken(this.#sandbox, start, { signal: this.#left.signal })
  }

  /** Rejects with `EXISTS` where its number was taken to keep it from beginning. */
  async #assertBegun(): Promise<void> {
    const { taskId, runId } = this.#spec
    if (await hasBegun(this.#sandbox, this.#spec, { signal: this.#left.signal })) return
    throw new ConductorError(
      'EXISTS',
      `run ${runId} of ${taskId} did not begin: a conductor is finishing its worker`,
      { retryable: true },
    )
  }

  /** Only the exit record knows the command's own end; a status may as well be that of whatever was to start or to watch it. */
  async #complete(status: number): Promise<RunResult> {
    const { runId } = this
    const printed = this.#output.kept
    const { signal } = this.#left
    try {
      const file = await this.#sandbox.openFile(`${runFolder(this.#spec)}/${RUN_FILES.exit}`, { signal })
      const record = parseExitRecord((await readLimited(file)) ?? '')
      return { runId, exitCode: record.code, signal: record.signal, ...printed }
    } catch (error) {
      if (!isConductorError(error) || (error.code !== 'NOT_FOUND' && error.code !== 'PROTOCOL')) throw error
      const unrecorded = status === UNSEEN.exitCode ? {} : { supervisorStatus: status }
      return { runId, exitCode: null, signal: null, ...unrecorded, ...printed }
    }
  }
}

/** How a command was started here. */
interface Started {
  readonly running: RunningCommand
  readonly start: RunStart
}

function taken({ runId, taskId }: CommandSpec): ConductorError {
  const what = `run ${runId} of ${taskId} did not begin: another conductor has begun one of that number`
  return new ConductorError('EXISTS', what, { retryable: true })
}
