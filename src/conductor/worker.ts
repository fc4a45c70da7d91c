import { EventEmitter } from 'eventemitter3'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import type { WorkerGrant } from '../grants/worker-grant.js'
import type { WorkerRecord } from '../protocol/worker-record.js'
import type { ResultsContext } from '../results/context.js'
import type { TierProblem } from '../results/result.js'
import { taskSource } from '../results/result-source.js'
import { createResults, type Results } from '../results/results.js'
import type { RemoteSandbox } from '../sandbox/remote-sandbox.js'
import { SandboxFiles } from '../sandbox/sandbox-files.js'
import type { ResultStore } from '../stores/result-store.js'
import { SpoolStore } from '../stores/spool-store.js'
import { Announcer } from './announcer.js'
import { CommandSlot, exitOf } from './command-slot.js'
import { Deadline } from './deadline.js'
import { finishTask } from './finish-task.js'
import type { LogOffsets } from './follow-log.js'
import type { Inspection } from './inspect.js'
import { Lease } from './lease.js'
import { LifeSigns } from './life-signs.js'
import type { TaskPlaces } from './places.js'
import { grantEnd, workerFile } from './provision.js'
import type { Receipt, WorkerExit } from './receipt.js'
import { type CommandSpec, type RunResult, SupervisedCommand } from './supervised-command.js'
import {
  extendSchema,
  type RunOptions,
  runOptionsSchema,
  type TerminateOptions,
  terminateOptionsSchema,
  type WorkerEvents,
  type WorkerState,
} from './worker-options.js'

/** What a worker is made from. */
export interface WorkerParts {
  readonly sandbox: RemoteSandbox
  readonly record: WorkerRecord
  readonly places: TaskPlaces
  /** Ended with the worker. */
  readonly grant?: WorkerGrant | undefined
  readonly onClosed: () => void
  /** Where it stands, when it was not started here. */
  readonly found?: Inspection | undefined
}

/** One sandbox with one task in it. Made by `conductor.spawnWorker()` or `attach()`; ends with `terminate()`. */
export class Worker extends EventEmitter<WorkerEvents> implements AsyncDisposable {
  readonly taskId: string
  /** All that this task has stored, on every tier, now and after the worker is gone. */
  readonly results: Results
  /** @internal Where its results lie at present. */
  readonly resultsContext: ResultsContext
  readonly #sandbox: RemoteSandbox
  #record: WorkerRecord
  readonly #places: TaskPlaces
  readonly #spool: SpoolStore
  readonly #grant: WorkerGrant | undefined
  readonly #signs: LifeSigns
  readonly #lease: Lease
  readonly #deadline: Deadline
  readonly #announcer: Announcer
  readonly #onClosed: () => void
  readonly #slot: CommandSlot
  #state: WorkerState
  #runs: number
  #terminating: Promise<Receipt> | undefined

  /** @internal */
  constructor({ sandbox, record, places, grant, onClosed, found }: WorkerParts) {
    super()
    this.taskId = record.task_id
    this.#sandbox = sandbox
    this.#record = record
    this.#places = places
    this.#grant = grant
    this.#onClosed = onClosed
    this.#runs = found?.lastRun ?? 0
    this.#slot = new CommandSlot(found === undefined || found.lastRun === 0 ? undefined : foundExit(found))
    this.#state = this.#runs === 0 ? 'ready' : 'exited'
    this.#spool = new SpoolStore(
      `sandbox ${sandbox.id}`,
      'sandbox',
      new SandboxFiles(sandbox, places.localDir),
    )
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
    this.#announcer = new Announcer({
      taskId: this.taskId,
      sandbox,
      spool: this.#spool,
      places,
      results: this.resultsContext,
      onResult: (result) => this.emit('result', result),
    })
    this.results = createResults(taskSource(this.resultsContext))
    const endsAt = new Date(record.deadline_at)
    this.#signs = new LifeSigns({ sandbox, record, places, takenOver: found !== undefined })
    this.#lease = new Lease(sandbox, endsAt, {
      extended: (ms) => this.#signs.extended(ms),
      gone: (error) => this.#lose(error),
    })
    this.#deadline = new Deadline(endsAt, record.grace_ms, () => void this.#timeOut())
  }

  get state(): WorkerState {
    return this.#state
  }

  /** E2B's id of the sandbox, for use with its own SDK and dashboard. */
  get sandboxId(): string {
    return this.#sandbox.id
  }

  /** Adds a listener. One for `result` hears of results as they are stored, also when the command runs already. */
  override on<Name extends EventEmitter.EventNames<WorkerEvents>>(
    event: Name,
    listener: EventEmitter.EventListener<WorkerEvents, Name>,
    context?: unknown,
  ): this {
    super.on(event, listener, context)
    if (event === 'result' && this.#state === 'running') this.#announcer.watch()
    return this
  }

  /** Runs one shell command to its end, whatever its exit code. One at a time; the next may follow. */
  async run(command: string, options: RunOptions = {}): Promise<RunResult> {
    const running = await this.start(command, options)
    return running.ended
  }

  /** Starts one shell command and resolves once it runs; `wait()` awaits its end. */
  async start(command: string, options: RunOptions = {}): Promise<{ readonly ended: Promise<RunResult> }> {
    const { cwd, env, outputs, signal } = checkOptions('run', runOptionsSchema, options)
    if (typeof command !== 'string' || command.trim() === '') {
      throw new ConductorError('INVALID_OPTION', 'run: command must be a non-empty string')
    }
    if (this.#state !== 'ready' && this.#state !== 'exited') {
      const code = this.#state === 'running' ? 'EXISTS' : 'CLOSED'
      throw new ConductorError(
        code,
        `worker ${this.taskId} cannot start a command while it is ${this.#state}`,
      )
    }
    this.#to('running')
    if (this.listenerCount('result') > 0) this.#announcer.watch()
    this.#runs += 1
    const spec = this.#specOf(String(this.#runs), command, { cwd, env, outputs })
    const starting = SupervisedCommand.start(this.#sandbox, spec, { signal })
    this.#take(starting)
    const started = await starting
    if (signal !== undefined) stopOnAbort(started, signal)
    // Whoever hears of the end may start the next command at once.
    const settled = this.#slot.wait().then(ignore, ignore)
    const ended = settled.then(() => started.ended)
    ended.catch(ignore)
    return { ended }
  }

  /**
   * @internal Follows the last command of a worker that was not started here, also one that has ended: what it printed since
   * the given bytes is told again, then its end.
   */
  follow({ pid }: Pick<Inspection, 'pid'>, from: LogOffsets): void {
    if (this.#runs === 0) return
    this.#to('running')
    const spec = this.#specOf(String(this.#runs), '', {})
    this.#take(Promise.resolve(SupervisedCommand.resume(this.#sandbox, spec, pid, from)))
  }

  /** Resolves when the last command has ended; rejects only when its end cannot be known (`SANDBOX_GONE`). Resolves at once for a worker that never ran one. */
  async wait(options: CallOptions = {}): Promise<WorkerExit> {
    return this.#slot.wait(options)
  }

  /**
   * Gives the worker so much time from now, in milliseconds, more or less than it had; what it may write with is renewed along
   * with it. Rejects with `CLOSED` once it has ended.
   */
  async extend(timeoutMs: number, { signal }: CallOptions = {}): Promise<void> {
    checkOptions('extend', extendSchema, { timeoutMs })
    if (!isAlive(this.#state)) {
      throw new ConductorError(
        'CLOSED',
        `worker ${this.taskId} cannot be extended while it is ${this.#state}`,
      )
    }
    const endsAt = new Date(Date.now() + timeoutMs)
    // The grant first: time without the right to use it is worth nothing.
    await this.#grant?.refresh(this.#sandbox, grantEnd(endsAt.getTime()), { signal })
    this.#record = { ...this.#record, deadline_at: endsAt.toISOString() }
    await this.#sandbox.writeFiles([workerFile(this.#record, this.#places.localDir)], { signal })
    await this.#lease.prolong(endsAt)
    this.#deadline.move(endsAt)
  }

  /**
   * Stops the command, persists declared outputs, makes sure that every result lies beyond the sandbox, seals the task, and
   * only then kills the sandbox. Rejects with `UNDELIVERED`, the sandbox still alive, when results would be destroyed and
   * `force` is not set. Repeated calls get the same receipt.
   */
  async terminate(options: TerminateOptions = {}): Promise<Receipt> {
    const { force, signal } = checkOptions('terminate', terminateOptionsSchema, options)
    if (this.#state === 'detached') {
      throw new ConductorError('CLOSED', `worker ${this.taskId} was detached: attach to it to end it`)
    }
    this.#terminating ??= this.#terminate(force, signal).catch((error: unknown) => {
      // A refusal or a failure leaves the sandbox as it is; the next call tries again.
      this.#terminating = undefined
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
   * holds. `attach()` or `recover()` takes it up again, here or elsewhere.
   */
  async detach(): Promise<void> {
    if (this.#state === 'terminated' || this.#state === 'lost' || this.#state === 'detached') return
    this.#to('detached')
    await this.#slot.leave()
    await this.#close()
  }

  /** `terminate()`, for `await using`; a worker that was detached stays as it is. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state !== 'detached') await this.terminate()
  }

  async #terminate(force: boolean, signal: AbortSignal | undefined): Promise<Receipt> {
    if (this.#state === 'running') {
      try {
        await this.#slot.stop('killed', { signal })
      } catch (error) {
        this.#noteFailure(error)
        if (!isConductorError(error) || (error.code !== 'SANDBOX_GONE' && !force)) throw error
      }
    }
    const wasLost = this.#state === 'lost'
    if (!wasLost) this.#to('draining')
    try {
      const receipt = await finishTask({
        taskId: this.taskId,
        sandbox: wasLost ? undefined : this.#sandbox,
        spool: this.#spool,
        places: this.#places,
        exit: this.#slot.exit,
        record: this.#record,
        sandboxId: this.#sandbox.id,
        force,
        lost: () => this.#signs.lost(),
        certify: (exit) => this.#signs.certify(exit, { signal }),
        onRecord: (record) => this.#announcer.announce(record),
        signal,
      })
      if (!wasLost) this.#to(receipt.outcome === 'lost' ? 'lost' : 'terminated')
      await this.#close()
      return receipt
    } catch (error) {
      if (!wasLost) this.#to('exited')
      throw error
    }
  }

  async #close(): Promise<void> {
    this.#deadline.end()
    this.#lease.end()
    this.#onClosed()
    await this.#announcer.end()
    await this.#grant?.end()
  }

  #stores(): readonly ResultStore[] {
    const gone = this.#state === 'terminated' || this.#state === 'lost'
    return gone
      ? this.#places.stores
      : [...this.#places.stores.filter(({ tier }) => tier !== 'volume'), this.#spool]
  }

  #to(state: WorkerState): void {
    this.#state = state
    this.emit('state', state)
  }

  #specOf(
    runId: string,
    command: string,
    { cwd, env, outputs }: Pick<RunOptions, 'cwd' | 'env' | 'outputs'>,
  ): CommandSpec {
    return {
      taskId: this.taskId,
      runId,
      localDir: this.#places.localDir,
      command,
      cwd: cwd ?? this.#record.cwd,
      env: env ?? {},
      outputs: outputs ?? [],
      graceMs: this.#record.grace_ms,
      onStdout: (text) => {
        this.#signs.note('stdout', text)
        this.emit('stdout', text)
      },
      onStderr: (text) => {
        this.#signs.note('stderr', text)
        this.emit('stderr', text)
      },
    }
  }

  #take(command: Promise<SupervisedCommand>): void {
    this.#slot.take(command, {
      examine: (exit, run) => this.#signs.examine(exit, run),
      end: (exit) => {
        if (this.#state === 'running') this.#to('exited')
        this.emit('exit', exit)
      },
      failure: (error) => this.#noteFailure(error),
    })
  }

  #noteFailure(error: unknown): void {
    if (isConductorError(error) && error.code === 'SANDBOX_GONE') this.#lose(error)
    else if (this.#state === 'running') this.#to('exited')
  }

  #lose(error: ConductorError): void {
    if (this.#state === 'terminated' || this.#state === 'lost' || this.#state === 'detached') return
    this.#slot.exit = this.#signs.lost()
    this.#to('lost')
    this.#lease.end()
    this.emit('lost', error)
  }

  async #timeOut(): Promise<void> {
    if (this.#state !== 'running') return
    this.emit('deadline', this.#deadline.at)
    try {
      await this.#slot.stop('timed_out')
    } catch (error) {
      this.#noteFailure(error)
    }
  }
}

/** Nobody sees any more whether somebody stopped it. */
function foundExit({ exit }: Inspection): WorkerExit {
  return exitOf({ exitCode: exit?.code ?? null, signal: exit?.signal ?? null })
}

function isAlive(state: WorkerState): boolean {
  return state === 'ready' || state === 'running' || state === 'exited'
}

function ignore(): void {}

/** Stops a command when its caller gives it up. */
function stopOnAbort(command: SupervisedCommand, signal: AbortSignal): void {
  const stop = (): void => {
    // A command that cannot be stopped is one whose end cannot be seen, which whoever awaits it hears.
    command.stop().catch(() => {})
  }
  if (signal.aborted) stop()
  else signal.addEventListener('abort', stop, { once: true })
  const forget = (): void => signal.removeEventListener('abort', stop)
  command.ended.then(forget, forget)
}
