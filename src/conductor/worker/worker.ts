import { EventEmitter } from 'eventemitter3'
import type { CallOptions } from '../../call-options.js'
import { checkOptions } from '../../check-options.js'
import type { ResultsContext } from '../../results/context.js'
import type { TierProblem } from '../../results/result.js'
import { taskSource } from '../../results/result-source.js'
import { createResults, type Results } from '../../results/results.js'
import type { ResultStore } from '../../stores/result-store.js'
import type { LogOffsets } from '../command/follow-log.js'
import type { Inspection } from '../command/inspect.js'
import type { RunResult } from '../command/supervised-command.js'
import type { LateSeal } from '../end/late-seals.js'
import type { Receipt, WorkerExit } from '../end/receipt.js'
import type { TaskPlaces } from '../places.js'
import type { AttemptParts } from './attempt.js'
import { Attempts } from './attempts.js'
import { Deadline } from './deadline.js'
import { Ending, type EndOptions } from './ending.js'
import type { Repetition } from './retrier.js'
import { WorkerCommands } from './worker-commands.js'
import type { WorkerEvents } from './worker-events.js'
import { WorkerLife, type WorkerState } from './worker-life.js'
import {
  type CommandOptions,
  extendSchema,
  type OutputOffsets,
  type RunOptions,
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
  readonly #attempts: Attempts
  readonly #commands: WorkerCommands
  readonly #ending: Ending

  /** @internal */
  constructor({ places, onClosed, found, ...parts }: WorkerParts) {
    super()
    const { record } = parts
    this.taskId = record.task_id
    this.#places = places
    this.#onClosed = onClosed
    const state = found === undefined || found.lastRun === 0 ? 'ready' : 'exited'
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
        if (attempt === this.#attempts.current) this.#commands.gone(error)
      },
    })
    const onNear = (): void => void this.#commands.timeOut()
    this.#deadline = new Deadline(new Date(record.deadline_at), record.grace_ms, onNear)
    this.#commands = new WorkerCommands({
      taskId: this.taskId,
      life: this.#life,
      deadline: this.#deadline,
      attempts: this.#attempts,
      events: this,
      found,
    })
    this.#ending = new Ending(this.taskId, (how) => this.#end(how))
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
    return this.#commands.start(command, options, { keepsOutput: true })
  }

  /** @internal `start()` of a command that is begun again, if so, where its sandbox is lost. */
  async launch(command: string, options: CommandOptions, repetition?: Repetition): Promise<void> {
    await this.#commands.launch(command, options, repetition)
  }

  /** @internal Whoever spawned it can listen by now: tells what it has printed since it was launched, and goes on. */
  tellAll(): void {
    this.#commands.tellAll()
  }

  /**
   * @internal Follows the last command of a worker that was not started here, also one that has ended: what it printed since
   * the given bytes is told again, then its end.
   */
  follow({ pid }: Pick<Inspection, 'pid'>, from: LogOffsets): void {
    this.#commands.follow(pid, from)
  }

  /**
   * Resolves when the last command has ended, in whichever sandbox; rejects only when its end cannot be known (`SANDBOX_GONE`), or
   * it did not begin.
   * Resolves at once for a worker that never ran one.
   */
  async wait(options: CallOptions = {}): Promise<WorkerExit> {
    return this.#commands.wait(options)
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
      await this.#commands.settled()
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
    return this.#ending.ask({ force, signal })
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
      await this.#commands.leave()
      await this.#close({ goesOn: true })
    }
    const { stdout, stderr } = await this.#commands.offsets()
    return { stdoutOffsetBytes: stdout, stderrOffsetBytes: stderr }
  }

  /** `terminate()`, for `await using`; a worker that was detached stays as it is. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.state !== 'detached') await this.terminate()
  }

  async #end({ force, signal }: EndOptions): Promise<Receipt> {
    this.#attempts.stop()
    await this.#commands.end({ force, signal })
    const isLost = this.state === 'lost'
    if (!isLost) this.#life.to('draining')
    try {
      const receipt = await this.#attempts.finish(this.#commands.exit, { force, isLost, signal })
      if (!isLost) this.#life.to(receipt.outcome === 'lost' ? 'lost' : 'terminated')
      await this.#close()
      return receipt
    } catch (error) {
      if (!isLost) this.#life.to('exited')
      throw error
    }
  }

  async #close({ goesOn = false } = {}): Promise<void> {
    this.#deadline.end()
    this.#onClosed(this.state === 'detached' ? [] : this.#attempts.lateSeals)
    await this.#attempts.end({ goesOn })
  }

  #stores(): readonly ResultStore[] {
    return this.#life.hasSandbox
      ? [...this.#places.stores.filter(({ tier }) => tier !== 'volume'), this.#attempts.current.spool]
      : this.#places.stores
  }
}
