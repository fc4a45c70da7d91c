import { EventEmitter } from 'eventemitter3'
import type { CallOptions } from '../../call-options.js'
import { checkOptions } from '../../check-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { ResultsContext } from '../../results/context.js'
import type { TierProblem } from '../../results/result.js'
import { taskSource } from '../../results/result-source.js'
import { createResults, type Results } from '../../results/results.js'
import { isGone } from '../../sandbox/map-sandbox-error.js'
import { cutOff } from '../../sandbox/within-limit.js'
import { joinSignals } from '../../signals.js'
import type { ResultStore } from '../../stores/result-store.js'
import { untilAborted } from '../../until-aborted.js'
import type { LogOffsets } from '../command/follow-log.js'
import type { Inspection } from '../command/inspect.js'
import type { RunResult, SupervisedCommand } from '../command/supervised-command.js'
import type { LateSeal } from '../end/late-seals.js'
import type { Receipt, WorkerExit } from '../end/receipt.js'
import type { TaskPlaces } from '../places.js'
import type { AttemptParts, OnPrinted } from './attempt.js'
import { Attempts } from './attempts.js'
import { Backlog } from './backlog.js'
import { CommandSlot, foundExit } from './command-slot.js'
import { Deadline } from './deadline.js'
import type { Repetition } from './retrier.js'
import type { WorkerEvents } from './worker-events.js'
import { WorkerLife, type WorkerState } from './worker-life.js'
import {
  type CommandOptions,
  extendSchema,
  type OutputOffsets,
  type RunOptions,
  runOptionsSchema,
  type TerminateOptions,
  terminateOptionsSchema,
} from './worker-options.js'

/** What a worker is made from. */
export interface WorkerParts extends AttemptParts {
  readonly places: TaskPlaces
  /** Told once it is over, with what is left to be written down of that. */
  readonly onClosed: (lateSeals: readonly LateSeal[]) => void
  /** Where it stands, when it was not started here. */
  readonly found?: Inspection | undefined
}

const FROM_START = { stdout: 0, stderr: 0 }
/** How much longer than its grace a command of a worker that is killed may take to be seen to end. */
const STOP_MARGIN_MS = 60_000
const UNSEEN_KILL: WorkerExit = { outcome: 'killed', exitCode: null, signal: null, cause: 'stopped' }

/** One task in a sandbox, or with `retries.lost` in one after the other. Made by `conductor.spawnWorker()` or `attach()`; ends with `terminate()`. */
export class Worker extends EventEmitter<WorkerEvents> implements AsyncDisposable {
  readonly taskId: string
  /** All that this task has stored, on every tier, now and after the worker is gone. */
  readonly results: Results
  /** @internal Where its results lie at present. */
  readonly resultsContext: ResultsContext
  readonly #places: TaskPlaces
  readonly #life: WorkerLife
  readonly #deadline: Deadline
  readonly #onClosed: WorkerParts['onClosed']
  readonly #slot: CommandSlot
  readonly #backlog = new Backlog()
  readonly #attempts: Attempts
  #runs: number
  /** Whether nobody knows how the last command ended, if it has. */
  #isUnseen = false
  #terminating: Promise<Receipt> | undefined
  /** Ends a patient end of it in favour of a forced one. */
  #hurry = new AbortController()

  /** @internal */
  constructor({ places, onClosed, found, ...parts }: WorkerParts) {
    super()
    const { record } = parts
    this.taskId = record.task_id
    this.#places = places
    this.#onClosed = onClosed
    this.#runs = found?.lastRun ?? 0
    this.#slot = new CommandSlot(found === undefined || found.lastRun === 0 ? undefined : foundExit(found))
    const state = this.#runs === 0 ? 'ready' : 'exited'
    this.#life = new WorkerLife(this.taskId, state, (next) => this.emit('state', next))
    const onProblem = (problem: TierProblem): void => {
      this.emit('problem', problem)
    }
    this.resultsContext = {
      taskId: this.taskId,
      manifests: places.manifests,
      stores: async () => this.#stores(),
      decryptor: places.encryption?.decryptor,
      onProblem,
    }
    this.results = createResults(taskSource(this.resultsContext))
    this.#attempts = new Attempts(parts, {
      places,
      results: this.resultsContext,
      takenOver: found !== undefined,
      onResult: (result) => this.emit('result', result),
      onGone: (attempt, error) => {
        if (attempt !== this.#attempts.current) return
        // Its connection may not have noticed, and is where everybody hears of it.
        if (this.state === 'running') void this.#slot.leave(error)
        else if (this.state !== 'retrying') this.#lose(error)
      },
    })
    this.#deadline = new Deadline(new Date(record.deadline_at), record.grace_ms, () => void this.#timeOut())
  }

  get state(): WorkerState {
    return this.#life.state
  }

  /** E2B's id of the sandbox, for use with its own SDK and dashboard; the last one's while another is being made. */
  get sandboxId(): string {
    return this.#attempts.current.sandbox.id
  }

  /** Numbers the task's sandboxes, from 1. */
  get attempt(): number {
    return this.#attempts.current.record.attempt
  }

  /** Adds a listener. One for `result` hears of results as they are stored, also when the command runs already. */
  override on<Name extends EventEmitter.EventNames<WorkerEvents>>(
    event: Name,
    listener: EventEmitter.EventListener<WorkerEvents, Name>,
    context?: unknown,
  ): this {
    super.on(event, listener, context)
    if (event === 'result' && this.state === 'running') this.#attempts.current.watchResults()
    return this
  }

  /**
   * Runs one shell command to its end, whatever its exit code. One at a time; the next may follow. Rejects with `SANDBOX_GONE`
   * when the sandbox is lost meanwhile, also with `retries.lost`: what is begun again is only the `command` of `spawnWorker`; with
   * `EXISTS`, retryable, when it did not begin because another conductor was about to finish the worker, or has begun one.
   */
  async run(command: string, options: RunOptions = {}): Promise<RunResult> {
    const running = await this.start(command, options)
    return running.ended
  }

  /** Starts one shell command, as `run()` does, and resolves once it runs; `wait()` awaits its end. */
  async start(command: string, options: RunOptions = {}): Promise<{ readonly ended: Promise<RunResult> }> {
    return this.#start(command, options, { keepsOutput: true })
  }

  async #start(
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

  /** @internal `start()` of a command that is begun again, if so, where its sandbox is lost. */
  async launch(command: string, options: CommandOptions, repetition?: Repetition): Promise<void> {
    this.#backlog.hold()
    await this.#start(command, options, { keepsOutput: false })
    if (repetition === undefined) return
    this.#attempts.repeat(repetition, {
      begin: () => this.#begin(command, options, { keepsOutput: false }),
      deadline: () => this.#deadline.at,
      onRetry: (retry) => this.emit('retry', retry),
      onGrant: (event) => this.emit('grant', event),
    })
  }

  /** @internal Whoever spawned it can listen by now: tells what it has printed since it was launched, and goes on. */
  tellAll(): void {
    this.#backlog.release()
  }

  /**
   * @internal Follows the last command of a worker that was not started here, also one that has ended: what it printed since
   * the given bytes is told again, then its end.
   */
  follow({ pid }: Pick<Inspection, 'pid'>, from: LogOffsets): void {
    if (this.#runs === 0) return
    this.#life.to('running')
    const runId = String(this.#runs)
    this.#take(Promise.resolve(this.#attempts.current.resumeCommand(runId, pid, from, this.#printed)))
  }

  /**
   * Resolves when the last command has ended, in whichever sandbox; rejects only when its end cannot be known (`SANDBOX_GONE`), or
   * it did not begin.
   * Resolves at once for a worker that never ran one.
   */
  async wait(options: CallOptions = {}): Promise<WorkerExit> {
    return this.#slot.wait(options)
  }

  /**
   * Gives the worker so much time from now, in milliseconds, more or less than it had; what it may write with is renewed along
   * with it. Rejects with `CLOSED` once it has ended.
   */
  async extend(timeoutMs: number, { signal }: CallOptions = {}): Promise<void> {
    checkOptions('extend', extendSchema, { timeoutMs })
    this.#life.assertMayExtend()
    const endsAt = new Date(Date.now() + timeoutMs)
    if (this.state === 'retrying') {
      this.#deadline.move(endsAt)
      await this.#slot.settled()
      this.#life.assertMayExtend()
    }
    await this.#attempts.current.extend(endsAt, { signal })
    this.#deadline.move(endsAt)
  }

  /**
   * Stops the command, persists declared outputs, makes sure that every result lies beyond the sandbox, seals the task, and
   * only then kills the sandbox. Rejects with `UNDELIVERED`, the sandbox still alive, when results would be destroyed and
   * `force` is not set. Repeated calls get the same receipt.
   */
  async terminate(options: TerminateOptions = {}): Promise<Receipt> {
    const { force, signal } = checkOptions('terminate', terminateOptionsSchema, options)
    this.#life.assertMayEnd()
    // Whoever began it may have more time.
    if (force) this.#hurry.abort(new ConductorError('CLOSED', `${this.taskId} was to be killed meanwhile`))
    if (this.#terminating !== undefined) return untilAborted(this.#terminating, signal)
    const hurry = this.#hurry.signal
    const patient = joinSignals(hurry, signal)
    const ending = force
      ? this.#terminate(true, signal)
      : this.#terminate(false, patient).catch((error: unknown) => {
          // Somebody has no more patience; whoever had gets the same receipt.
          if (hurry.aborted) return this.#terminate(true, undefined)
          throw error
        })
    this.#terminating = ending.catch((error: unknown) => {
      // A refusal or a failure leaves the sandbox as it is; the next call tries again.
      this.#terminating = undefined
      this.#hurry = new AbortController()
      throw error
    })
    return this.#terminating
  }

  /** `terminate({ force: true })`: the sandbox goes, whatever becomes of its results; the receipt says what was given up. */
  async kill(options: CallOptions = {}): Promise<Receipt> {
    return this.terminate({ ...options, force: true })
  }

  /**
   * Gives the worker up without ending it: its command goes on, and once nobody extends its life, E2B pauses it with all it
   * holds. `attach()` or `recover()` takes it up again, here or elsewhere. Resolves with how far the output of its last command
   * was told here: given those, `attach()` goes on at that byte.
   */
  async detach(): Promise<OutputOffsets> {
    if (!this.#life.isOver) {
      this.#life.to('detached')
      this.#attempts.stop()
      await this.#slot.leave()
      await this.#close({ goesOn: true })
    }
    const { stdout, stderr } = (await this.#slot.offsets()) ?? FROM_START
    return { stdoutOffsetBytes: stdout, stderrOffsetBytes: stderr }
  }

  /** `terminate()`, for `await using`; a worker that was detached stays as it is. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.state !== 'detached') await this.terminate()
  }

  async #terminate(force: boolean, signal: AbortSignal | undefined): Promise<Receipt> {
    this.#attempts.stop()
    try {
      const stop = (limited: AbortSignal | undefined): Promise<void> => this.#stop(limited)
      if (!force) await stop(signal)
      else await cutOff(this.#graceMs + STOP_MARGIN_MS, `stop ${this.taskId}`, stop, signal)
    } catch (error) {
      // Whoever had no more time for it has seen no end of it.
      signal?.throwIfAborted()
      this.#noteFailure(error)
      if (!isConductorError(error) || (error.code !== 'SANDBOX_GONE' && !force)) throw error
      // What it was at is killed with its sandbox, and nobody sees how it ends.
      if (this.#isUnseen) this.#slot.exit = UNSEEN_KILL
    }
    const isLost = this.state === 'lost'
    if (!isLost) this.#life.to('draining')
    try {
      const receipt = await this.#attempts.finish(this.#slot.exit, { force, isLost, signal })
      if (!isLost) this.#life.to(receipt.outcome === 'lost' ? 'lost' : 'terminated')
      await this.#close()
      return receipt
    } catch (error) {
      if (!isLost) this.#life.to('exited')
      throw error
    }
  }

  async #stop(signal: AbortSignal | undefined): Promise<void> {
    if (this.#isUnseen) await this.#lookAgain(signal)
    if (this.state === 'running' || this.state === 'retrying') await this.#slot.stop('killed', { signal })
  }

  get #graceMs(): number {
    return this.#attempts.current.record.grace_ms
  }

  /** Takes up the last command again, whose end could not be seen while E2B was out of reach; what has ended is waited for. */
  async #lookAgain(signal: AbortSignal | undefined): Promise<void> {
    const { lastRun, pid } = await this.#attempts.current.inspect({ signal })
    // It never began.
    if (lastRun < this.#runs) return
    this.#life.to('running')
    // What it printed was told as far as it was heard.
    const command = this.#attempts.current.resumeCommand(String(this.#runs), pid, FROM_START, ignore)
    this.#take(Promise.resolve(command))
    if (pid === undefined) await this.#slot.wait({ signal })
  }

  async #close({ goesOn = false } = {}): Promise<void> {
    this.#deadline.end()
    this.#onClosed(this.state === 'detached' ? [] : this.#attempts.lateSeals)
    await this.#attempts.end({ goesOn })
  }

  readonly #printed: OnPrinted = (stream, text) => this.#backlog.tell(() => this.emit(stream, text))

  #stores(): readonly ResultStore[] {
    return this.#life.hasSandbox
      ? [...this.#places.stores.filter(({ tier }) => tier !== 'volume'), this.#attempts.current.spool]
      : this.#places.stores
  }

  #begin(
    command: string,
    options: CommandOptions,
    call: CallOptions & { readonly keepsOutput: boolean },
  ): Promise<SupervisedCommand> {
    this.#isUnseen = false
    this.#life.to('running')
    // What begins when its time is up has none either.
    this.#deadline.move(this.#deadline.at)
    if (this.listenerCount('result') > 0) this.#attempts.current.watchResults()
    this.#runs += 1
    return this.#attempts.current.startCommand(
      String(this.#runs),
      command,
      { ...options, ...call },
      this.#printed,
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
        if (this.state === 'running') this.#life.to('exited')
        this.emit('exit', exit)
      },
      failure: (error) => this.#noteFailure(error),
    })
  }

  #again(error: unknown): Promise<SupervisedCommand> | undefined {
    if (!this.#attempts.isWilling || this.state !== 'running' || !isGone(error)) return undefined
    this.#life.to('retrying')
    return this.#attempts.replace(error)
  }

  #noteFailure(error: unknown): void {
    if (isGone(error)) this.#lose(error)
    else if (this.state === 'running') {
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
    this.emit('lost', error)
  }

  async #timeOut(): Promise<void> {
    if (this.state === 'retrying') this.#attempts.stop()
    if (this.state !== 'running') return
    this.emit('deadline', this.#deadline.at)
    try {
      await this.#slot.stop('timed_out')
    } catch (error) {
      this.#noteFailure(error)
    }
  }
}

function ignore(): void {}
