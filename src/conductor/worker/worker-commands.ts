import type { EventEmitter } from 'eventemitter3'
import type { CallOptions } from '../../call-options.js'
import { checkOptions } from '../../check-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import { isGone } from '../../sandbox/map-sandbox-error.js'
import { cutOff } from '../../sandbox/within-limit.js'
import type { LogOffsets } from '../command/follow-log.js'
import type { Inspection } from '../command/inspect.js'
import type { RunResult, SupervisedCommand } from '../command/supervised-command.js'
import type { WorkerExit } from '../end/receipt.js'
import type { OnPrinted } from './attempt.js'
import type { Attempts } from './attempts.js'
import { Backlog } from './backlog.js'
import { CommandSlot, foundExit } from './command-slot.js'
import type { Deadline } from './deadline.js'
import type { Repetition } from './retrier.js'
import type { WorkerEvents } from './worker-events.js'
import type { WorkerLife } from './worker-life.js'
import { type CommandOptions, type RunOptions, runOptionsSchema } from './worker-options.js'

/** Whose commands they are. */
export interface WorkerCommandsParts {
  readonly taskId: string
  readonly life: WorkerLife
  readonly deadline: Deadline
  readonly attempts: Attempts
  /** Where its listeners are. */
  readonly events: EventEmitter<WorkerEvents>
  /** Where the worker stands, when it was not started here. */
  readonly found: Inspection | undefined
}

const FROM_START: LogOffsets = { stdout: 0, stderr: 0 }
/** How much longer than its grace a command of a worker that is killed may take to be seen to end. */
const STOP_MARGIN_MS = 60_000
const UNSEEN_KILL: WorkerExit = { outcome: 'killed', exitCode: null, signal: null, cause: 'stopped' }

/** The commands of a worker, one after the other, in whichever sandbox it has: their output, their ends, and the loss of their sandbox. */
export class WorkerCommands {
  readonly #life: WorkerLife
  readonly #deadline: Deadline
  readonly #attempts: Attempts
  readonly #events: EventEmitter<WorkerEvents>
  readonly #slot: CommandSlot
  readonly #backlog = new Backlog()
  readonly #taskId: string
  #runs: number
  /** Whether nobody knows how the last command ended, if it has. */
  #isUnseen = false

  constructor({ taskId, life, deadline, attempts, events, found }: WorkerCommandsParts) {
    this.#taskId = taskId
    this.#life = life
    this.#deadline = deadline
    this.#attempts = attempts
    this.#events = events
    this.#runs = found?.lastRun ?? 0
    this.#slot = new CommandSlot(found === undefined || this.#runs === 0 ? undefined : foundExit(found))
  }

  /** How the last command ended. */
  get exit(): WorkerExit {
    return this.#slot.exit
  }

  /** Starts a command and resolves once it runs. */
  async start(
    command: string,
    options: RunOptions,
    { keepsOutput }: { readonly keepsOutput: boolean },
  ): Promise<{ readonly ended: Promise<RunResult> }> {
    const { signal, ...rest } = checkOptions('run', runOptionsSchema, options)
    if (typeof command !== 'string' || command.trim() === '') {
      throw new ConductorError('INVALID_OPTION', 'run: command must be a non-empty string')
    }
    this.#life.assertMayStart()
    this.#attempts.stop()
    this.#slot.forgetStop()
    const starting = this.#begin(command, rest, { signal, keepsOutput })
    this.#take(starting)
    const started = await starting
    if (signal !== undefined) started.stopOnAbort(signal)
    // Whoever hears of the end may start the next command at once.
    const settled = this.#slot.wait().then(ignore, ignore)
    const ended = settled.then(() => started.ended)
    ended.catch(ignore)
    return { ended }
  }

  /** Starts a command that is begun again, if so, where its sandbox is lost; its news wait for {@link tellAll}. */
  async launch(command: string, options: CommandOptions, repetition?: Repetition): Promise<void> {
    this.#backlog.hold()
    await this.start(command, options, { keepsOutput: false })
    if (repetition === undefined) return
    this.#attempts.repeat(repetition, {
      begin: () => this.#begin(command, options, { keepsOutput: false }),
      deadline: () => this.#deadline.at,
      onRetry: (retry) => this.#events.emit('retry', retry),
      onGrant: (event) => this.#events.emit('grant', event),
    })
  }

  /** Whoever spawned it can listen by now: tells what it has printed since it was launched, and goes on. */
  tellAll(): void {
    this.#backlog.release()
  }

  /** Follows the last command of a worker that was not started here, also one that has ended. */
  follow(pid: number | undefined, from: LogOffsets): void {
    if (this.#runs > 0) this.#resume(pid, from, this.#printed)
  }

  /** Resolves when the last command has ended, in whichever sandbox. */
  async wait(options: CallOptions): Promise<WorkerExit> {
    return this.#slot.wait(options)
  }

  /** Resolves once the present command runs, or never will. */
  async settled(): Promise<void> {
    await this.#slot.settled()
  }

  /** Leaves the present command to itself. */
  async leave(): Promise<void> {
    await this.#slot.leave()
  }

  /** How far the output of the last command was told, once it was left or has ended. */
  async offsets(): Promise<LogOffsets> {
    return (await this.#slot.offsets()) ?? FROM_START
  }

  /**
   * Stops the present command before its worker ends. Rejects where it cannot be seen to end, unless its sandbox is gone; with
   * `force` only when its caller gives it up.
   */
  async end({ force, signal }: CallOptions & { readonly force: boolean }): Promise<void> {
    try {
      const stop = (limited: AbortSignal | undefined): Promise<void> => this.#stop(limited)
      const limitMs = this.#attempts.current.record.grace_ms + STOP_MARGIN_MS
      if (force) await cutOff(limitMs, `stop ${this.#taskId}`, stop, signal)
      else await stop(signal)
    } catch (error) {
      // Whoever had no more time for it has seen no end of it.
      signal?.throwIfAborted()
      this.#noteFailure(error)
      if (!isConductorError(error) || (error.code !== 'SANDBOX_GONE' && !force)) throw error
      // What it was at is killed with its sandbox, and nobody sees how it ends.
      if (this.#isUnseen) this.#slot.exit = UNSEEN_KILL
    }
  }

  /** The worker's time is up: asks the present command to end. */
  async timeOut(): Promise<void> {
    if (this.#life.state === 'retrying') this.#attempts.stop()
    if (this.#life.state !== 'running') return
    this.#events.emit('deadline', this.#deadline.at)
    try {
      await this.#slot.stop('timed_out')
    } catch (error) {
      this.#noteFailure(error)
    }
  }

  /** The present sandbox exists no more. */
  gone(error: ConductorError): void {
    // Its connection may not have noticed, and is where everybody hears of it.
    if (this.#life.state === 'running') void this.#slot.leave(error)
    else if (this.#life.state !== 'retrying') this.#lose(error)
  }

  async #stop(signal: AbortSignal | undefined): Promise<void> {
    if (this.#isUnseen) await this.#lookAgain(signal)
    const { state } = this.#life
    if (state === 'running' || state === 'retrying') await this.#slot.stop('killed', { signal })
  }

  /** Takes up the last command again, whose end could not be seen while E2B was out of reach; what has ended is waited for. */
  async #lookAgain(signal: AbortSignal | undefined): Promise<void> {
    const { lastRun, pid } = await this.#attempts.current.inspect({ signal })
    // It never began.
    if (lastRun < this.#runs) return
    this.#resume(pid, await this.offsets(), this.#printed)
    if (pid === undefined) await this.#slot.wait({ signal })
  }

  readonly #printed: OnPrinted = (stream, text) => this.#backlog.tell(() => this.#events.emit(stream, text))

  #begin(
    command: string,
    options: CommandOptions,
    call: CallOptions & { readonly keepsOutput: boolean },
  ): Promise<SupervisedCommand> {
    this.#isUnseen = false
    this.#life.to('running')
    // What begins when its time is up has none either.
    this.#deadline.move(this.#deadline.at)
    if (this.#events.listenerCount('result') > 0) this.#attempts.current.watchResults()
    this.#runs += 1
    return this.#attempts.current.startCommand(
      String(this.#runs),
      command,
      { ...options, ...call },
      this.#printed,
    )
  }

  #resume(pid: number | undefined, from: LogOffsets, onPrinted: OnPrinted): void {
    this.#life.to('running')
    this.#take(
      Promise.resolve(this.#attempts.current.resumeCommand(String(this.#runs), pid, from, onPrinted)),
    )
  }

  #take(command: Promise<SupervisedCommand>): void {
    this.#slot.take(command, {
      examine: async (exit, run) => {
        await this.#backlog.released
        return this.#attempts.current.signs.examine(exit, run)
      },
      again: (error) => this.#again(error),
      end: (exit) => {
        this.#isUnseen = false
        if (this.#life.state === 'running') this.#life.to('exited')
        this.#events.emit('exit', exit)
      },
      failure: (error) => this.#noteFailure(error),
    })
  }

  #again(error: unknown): Promise<SupervisedCommand> | undefined {
    if (!this.#attempts.isWilling || this.#life.state !== 'running' || !isGone(error)) return undefined
    this.#life.to('retrying')
    return this.#attempts.replace(error)
  }

  #noteFailure(error: unknown): void {
    if (isGone(error)) this.#lose(error)
    else if (this.#life.state === 'running') {
      // One that did not begin has no end.
      this.#isUnseen = !(isConductorError(error) && error.code === 'EXISTS')
      this.#life.to('exited')
    }
  }

  #lose(error: ConductorError): void {
    if (this.#life.isOver) return
    this.#isUnseen = false
    this.#slot.exit = this.#attempts.current.signs.lost()
    this.#life.to('lost')
    this.#events.emit('lost', error)
  }
}

function ignore(): void {}
