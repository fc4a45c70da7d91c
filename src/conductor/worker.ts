import { EventEmitter } from 'eventemitter3'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import type { Outcome } from '../protocol/manifest.js'
import type { ResultsContext } from '../results/context.js'
import type { TierProblem } from '../results/result.js'
import { taskSource } from '../results/result-source.js'
import { createResults, type Results } from '../results/results.js'
import type { RemoteSandbox } from '../sandbox/remote-sandbox.js'
import { SandboxFiles } from '../sandbox/sandbox-files.js'
import type { ResultStore } from '../stores/result-store.js'
import { SpoolStore } from '../stores/spool-store.js'
import { Announcer } from './announcer.js'
import { finishTask } from './finish-task.js'
import { Lease } from './lease.js'
import type { ResolvedSpawn } from './options.js'
import type { TaskPlaces } from './places.js'
import { DEFAULT_CWD } from './provision.js'
import type { Receipt, WorkerExit } from './receipt.js'
import { type RunResult, SupervisedCommand } from './supervised-command.js'
import {
  type RunOptions,
  runOptionsSchema,
  type TerminateOptions,
  terminateOptionsSchema,
  type WorkerEvents,
  type WorkerState,
} from './worker-options.js'

/** One sandbox with one task in it. Made by `conductor.spawnWorker()`; ends with `terminate()`. */
export class Worker extends EventEmitter<WorkerEvents> implements AsyncDisposable {
  readonly taskId: string
  /** All that this task has stored, on every tier, now and after the worker is gone. */
  readonly results: Results
  /** @internal Where its results lie at present. */
  readonly resultsContext: ResultsContext
  readonly #sandbox: RemoteSandbox
  readonly #spawn: ResolvedSpawn
  readonly #places: TaskPlaces
  readonly #spool: SpoolStore
  readonly #lease: Lease
  readonly #announcer: Announcer
  readonly #onClosed: () => void
  readonly #deadline: NodeJS.Timeout
  #state: WorkerState = 'ready'
  #runs = 0
  /** The present command, from the moment its start is asked for. */
  #command: Promise<SupervisedCommand> | undefined
  #exit: WorkerExit = { outcome: 'idle', exitCode: null, signal: null }
  #lastExit: Promise<WorkerExit> | undefined
  #stopOutcome: Outcome | undefined
  #terminating: Promise<Receipt> | undefined

  /** @internal */
  constructor(parts: {
    sandbox: RemoteSandbox
    spawn: ResolvedSpawn
    places: TaskPlaces
    onClosed: () => void
  }) {
    super()
    this.taskId = parts.spawn.taskId
    this.#sandbox = parts.sandbox
    this.#spawn = parts.spawn
    this.#places = parts.places
    this.#onClosed = parts.onClosed
    this.#spool = new SpoolStore(
      `sandbox ${parts.sandbox.id}`,
      'sandbox',
      new SandboxFiles(parts.sandbox, parts.places.localDir),
    )
    const onProblem = (problem: TierProblem): void => {
      this.emit('problem', problem)
    }
    this.resultsContext = {
      taskId: this.taskId,
      manifests: parts.places.manifests,
      stores: async () => this.#stores(),
      onProblem,
    }
    this.#announcer = new Announcer({
      taskId: this.taskId,
      sandbox: parts.sandbox,
      spool: this.#spool,
      places: parts.places,
      results: this.resultsContext,
      onResult: (result) => this.emit('result', result),
    })
    this.results = createResults(taskSource(this.resultsContext))
    this.#lease = new Lease(parts.sandbox, parts.spawn.timeoutMs, (error) => this.#lose(error))
    this.#deadline = setTimeout(() => void this.#timeOut(), parts.spawn.timeoutMs)
    this.#deadline.unref()
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
    const starting = SupervisedCommand.start(
      this.#sandbox,
      {
        taskId: this.taskId,
        runId: String(this.#runs),
        localDir: this.#places.localDir,
        command,
        cwd: cwd ?? this.#spawn.cwd ?? DEFAULT_CWD,
        env: env ?? {},
        outputs: outputs ?? [],
        graceMs: this.#spawn.graceMs,
        onStdout: (text) => this.emit('stdout', text),
        onStderr: (text) => this.emit('stderr', text),
      },
      { signal },
    )
    this.#command = starting
    this.#lastExit = this.#noteEnd(starting)
    // Whoever waits hears of a failure; nobody may be waiting.
    this.#lastExit.catch(() => {})
    const started = await starting
    if (signal !== undefined) stopOnAbort(started, signal)
    return { ended: started.ended }
  }

  /** Resolves when the last command has ended; rejects only when its end cannot be known (`SANDBOX_GONE`). Resolves at once for a worker that never ran one. */
  async wait({ signal }: CallOptions = {}): Promise<WorkerExit> {
    signal?.throwIfAborted()
    const end = this.#lastExit
    if (end === undefined) return this.#exit
    if (signal === undefined) return end
    return await new Promise<WorkerExit>((resolve, reject) => {
      const abort = (): void => reject(signal.reason)
      signal.addEventListener('abort', abort, { once: true })
      end.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
    })
  }

  /**
   * Stops the command, persists declared outputs, makes sure that every result lies beyond the sandbox, seals the task, and
   * only then kills the sandbox. Rejects with `UNDELIVERED`, the sandbox still alive, when results would be destroyed and
   * `force` is not set. Repeated calls get the same receipt.
   */
  async terminate(options: TerminateOptions = {}): Promise<Receipt> {
    const { force, signal } = checkOptions('terminate', terminateOptionsSchema, options)
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

  /** `terminate()`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.terminate()
  }

  async #terminate(force: boolean, signal: AbortSignal | undefined): Promise<Receipt> {
    if (this.#state === 'running') {
      this.#stopOutcome ??= 'killed'
      try {
        await (await this.#command)?.stop({ signal })
        await this.#lastExit
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
        exit: this.#exit,
        outputs: this.#spawn.outputs ?? [],
        cwd: this.#spawn.cwd ?? DEFAULT_CWD,
        force,
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
    clearTimeout(this.#deadline)
    this.#lease.end()
    this.#onClosed()
    await this.#announcer.end()
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

  async #noteEnd(starting: Promise<SupervisedCommand>): Promise<WorkerExit> {
    try {
      const { exitCode, signal } = await (await starting).ended
      const outcome = this.#stopOutcome ?? (exitCode === 0 ? 'succeeded' : 'failed')
      this.#exit = { outcome, exitCode, signal }
      if (this.#state === 'running') this.#to('exited')
      this.emit('exit', this.#exit)
      return this.#exit
    } catch (error) {
      this.#noteFailure(error)
      throw error
    }
  }

  #noteFailure(error: unknown): void {
    if (isConductorError(error) && error.code === 'SANDBOX_GONE') this.#lose(error)
    else if (this.#state === 'running') this.#to('exited')
  }

  #lose(error: ConductorError): void {
    if (this.#state === 'terminated' || this.#state === 'lost') return
    this.#exit = { outcome: 'lost', exitCode: null, signal: null }
    this.#to('lost')
    this.#lease.end()
    this.emit('lost', error)
  }

  async #timeOut(): Promise<void> {
    if (this.#state !== 'running') return
    this.#stopOutcome = 'timed_out'
    try {
      await (await this.#command)?.stop()
    } catch (error) {
      this.#noteFailure(error)
    }
  }
}

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
