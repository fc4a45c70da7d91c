import { randomBytes } from 'node:crypto'
import { checkOptions } from '../check-options.js'
import { ConductorError } from '../errors.js'
import { Granter } from '../grants/granter.js'
import { assertTaskId } from '../protocol/key.js'
import type { ResultsQuery } from '../results/many-tasks.js'
import type { PruneOptions, PruneReport } from '../results/prune.js'
import type { Results } from '../results/results.js'
import type { Tasks, TasksOptions } from '../results/tasks.js'
import { admitListeners, joinSignals } from '../signals.js'
import { openS3Location, type S3Location } from '../stores/s3/s3-location.js'
import type { LogOffsets } from './command/follow-log.js'
import {
  type AttachOptions,
  attachOptionsSchema,
  type CloseOptions,
  closeOptionsSchema,
  recoverOptionsSchema,
} from './conductor-options.js'
import { LateSeals } from './end/late-seals.js'
import {
  assertAccessPossible,
  assertApiKey,
  type ConductorOptions,
  type ResolvedOptions,
  resolveOptions,
} from './options.js'
import { Reading } from './reading/reading.js'
import type { RehomeOptions, RehomeReport } from './reading/rehome.js'
import type { TaskResultsOptions } from './reading/results-options.js'
import { type EquippedWorker, FoundWorkers, isEquipped } from './recovery/found-workers.js'
import { type RecoverOptions, type Recovery, recoverWorkers } from './recovery/recover.js'
import { Roster } from './roster.js'
import { type ResolvedSpawn, type SpawnOptions, spawnOptionsSchema } from './spawn/spawn-options.js'
import { Spawner } from './spawn/spawner.js'
import { TaskLookup } from './task-lookup.js'
import type { Worker } from './worker/worker.js'

/** Spawns workers in sandboxes and reads what they leave. Owns its workers and its S3 client until `close()`. */
export class Conductor implements AsyncDisposable {
  readonly #options: ResolvedOptions
  readonly #lookup: TaskLookup
  readonly #spawner: Spawner
  readonly #foundWorkers: FoundWorkers
  readonly #reading: Reading
  readonly #s3: S3Location | undefined
  readonly #granter: Granter
  readonly #lateSeals = new LateSeals()
  readonly #roster: Roster
  readonly #closing = new AbortController()
  #recovery: Promise<Recovery> | undefined
  #handler: ((request: Request) => Promise<Response>) | undefined

  /** Reads the environment for what is left out. Throws `INVALID_OPTION` at once; nothing is sent yet. */
  constructor(options: ConductorOptions = {}) {
    this.#options = resolveOptions(options)
    this.#s3 = this.#options.s3 === undefined ? undefined : openS3Location(this.#options.s3)
    const { maxResultBytes, session, broker } = this.#options
    this.#granter = new Granter({ s3: this.#s3, maxResultBytes, session, broker })
    this.#lookup = new TaskLookup(this.#options, this.#s3)
    const means = { options: this.#options, s3: this.#s3, granter: this.#granter, lookup: this.#lookup }
    this.#spawner = new Spawner(means, this.#lateSeals)
    this.#foundWorkers = new FoundWorkers(means)
    this.#roster = new Roster(this.#options.maxWorkers, (lateSeals) => this.#lateSeals.add(lateSeals))
    this.#reading = new Reading({
      options: this.#options,
      s3: this.#s3,
      lookup: this.#lookup,
      workers: this.#roster.workers,
    })
    // Every request of every worker that is being started listens to it.
    admitListeners(this.#closing.signal)
  }

  /** Workers that are not terminated, by task id. */
  get workers(): ReadonlyMap<string, Worker> {
    return this.#roster.workers
  }

  /** How many workers wait for a place. */
  get queuedCount(): number {
    return this.#roster.queuedCount
  }

  /**
   * Creates a sandbox, equips it and starts its command. Resolves once the command runs; waits first while `maxWorkers` are
   * alive. The caller ends the worker with `terminate()`. A task that has a worker already, of whichever conductor, is
   * refused with `EXISTS`, or that worker taken up with `ifExists: 'attach'`.
   */
  async spawnWorker(options: SpawnOptions = {}): Promise<Worker> {
    const checked = checkOptions('spawnWorker', spawnOptionsSchema, options)
    const spawn: ResolvedSpawn = { ...checked, taskId: checked.taskId ?? newTaskId() }
    const { taskId } = spawn
    const attaches = spawn.ifExists === 'attach'
    assertAccessPossible(this.#options, spawn.access ?? this.#options.access)
    assertApiKey(this.#options)
    const present = this.#roster.workers.get(taskId)
    if (present !== undefined && attaches) return present
    const stop = joinSignals(this.#closing.signal, spawn.signal)
    const isNamed = checked.taskId !== undefined
    return this.#roster.admit(taskId, {
      make: (onClosed) => this.#spawner.spawn(spawn, isNamed, { signal: stop, onClosed }),
      elsewhere: async ([sandbox]) => {
        if (attaches) return this.attach(taskId, { signal: stop })
        throw new ConductorError('EXISTS', `task ${taskId} has a worker in sandbox ${sandbox?.id}`)
      },
      stop,
    })
  }

  /**
   * Takes up the worker of a task that another process started, waking it if it is paused: its output is told from the given
   * bytes on, its end and its results like a worker's of one's own. Rejects with `NOT_FOUND` when the task has no sandbox, and
   * with `EXISTS`, retryable, while it has one that is not ready for a worker, or `recover()` is at it here.
   */
  async attach(taskId: string, options: AttachOptions = {}): Promise<Worker> {
    assertTaskId(taskId)
    const { signal, stdoutOffsetBytes, stderrOffsetBytes } = checkOptions(
      'attach',
      attachOptionsSchema,
      options,
    )
    this.#closing.signal.throwIfAborted()
    const present = this.#roster.workers.get(taskId)
    if (present !== undefined) return present
    assertApiKey(this.#options)
    let bare: string | undefined
    for (const summary of await this.#lookup.findSandboxes(taskId, { signal })) {
      const found = await this.#foundWorkers.find(summary, { signal })
      if (!isEquipped(found)) {
        bare = summary.id
        continue
      }
      return this.#adopt(found, { stdout: stdoutOffsetBytes, stderr: stderrOffsetBytes }, signal)
    }
    if (bare === undefined) throw new ConductorError('NOT_FOUND', `task ${taskId} has no sandbox`)
    const what = `task ${taskId} is being started; if its conductor is no more, sandbox ${bare} is left to recover()`
    throw new ConductorError('EXISTS', what, { retryable: true })
  }

  /**
   * Goes on where a conductor of the same `id` ended, crashed or replaced: follows workers whose command runs, finishes those
   * whose command has ended. Give conductors that live side by side ids of their own.
   */
  async recover(options: RecoverOptions = {}): Promise<Recovery> {
    const { signal, onWorker } = checkOptions('recover', recoverOptionsSchema, options)
    this.#closing.signal.throwIfAborted()
    const stop = joinSignals(this.#closing.signal, signal)
    // What it has taken up by then is ended along with all others.
    this.#recovery ??= this.#roster
      .noteStart(() => this.#recover({ signal: stop, onWorker }))
      .finally(() => {
        this.#recovery = undefined
      })
    return this.#recovery
  }

  async #recover({ signal, onWorker }: RecoverOptions): Promise<Recovery> {
    assertApiKey(this.#options)
    await this.#lateSeals.tryNow({ signal })
    return recoverWorkers({
      conductorId: this.#options.id,
      lookup: this.#lookup,
      foundWorkers: this.#foundWorkers,
      isKnown: (taskId) => this.#roster.isKnown(taskId),
      isUnsealed: (taskId) => this.#lateSeals.has(taskId),
      reserve: (taskId) => this.#roster.reserve(taskId),
      onClosed: (lateSeals) => this.#lateSeals.add(lateSeals),
      onWorker,
      signal,
    })
  }

  /**
   * Answers what workers ask over HTTPS where `broker.url` is set; mount it there. Any conductor with the same options can
   * answer, whether or not it made the worker. Throws `INVALID_OPTION` without `broker.tokenSecret`.
   */
  get handler(): (request: Request) => Promise<Response> {
    this.#handler ??= this.#granter.handler()
    return this.#handler
  }

  /**
   * A task's results, from any process at any time, or those of several tasks as one. Those of a worker of this conductor are
   * its `results`, whatever the options say; of others, what lies only in their sandboxes is found there.
   */
  results(tasks: string | ResultsQuery, options: TaskResultsOptions = {}): Results {
    return this.#reading.results(tasks, options)
  }

  /** All tasks, newest first. Rejects with `UNSUPPORTED` when they are read where no place can list tasks. */
  tasks(options: TasksOptions = {}): Tasks {
    return this.#reading.tasks(options)
  }

  /** Deletes whole tasks that are old, from every tier. A failure of one is reported and does not hold up the rest. */
  async prune(options: PruneOptions): Promise<PruneReport> {
    return this.#reading.prune(options)
  }

  /** Copies results that landed on a lesser tier, while S3 was away, into S3. A failure of one is reported and does not hold up the rest. */
  async rehome(options: RehomeOptions = {}): Promise<RehomeReport> {
    return this.#reading.rehome(options)
  }

  /**
   * Refuses new workers, terminates the present ones side by side, and frees connections. Rejects when one could not be
   * terminated; that one lives on. With `timeoutMs`, those that were not finished by then are left to another process's
   * `recover()`, with everything they hold. So long it also tries to write down ends that S3 could not take before (a receipt's
   * `sealed: false`), once without it.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    const { timeoutMs, signal } = checkOptions('close', closeOptionsSchema, options)
    this.#closing.abort(new ConductorError('CLOSED', 'the conductor was closed'))
    const limit = joinSignals(signal, timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs))
    const failures = await this.#roster.endAll(limit)
    await Promise.all([this.#reading.close(), this.#lateSeals.finish({ signal: limit })])
    if (this.#roster.workers.size === 0) this.#s3?.close()
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1) {
      const said = new Set(failures.map((failure) => (failure instanceof Error ? failure.message : failure)))
      const shown = [...said].slice(0, 3).join('; ')
      throw new AggregateError(failures, `${failures.length} workers could not be terminated: ${shown}`)
    }
  }

  /** `close()`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Makes a found worker this conductor's own, and follows it. */
  async #adopt(found: EquippedWorker, from: LogOffsets, signal: AbortSignal | undefined): Promise<Worker> {
    const { task_id: taskId } = found.inspection.record
    const reservation = this.#roster.reserve(taskId)
    if (reservation === undefined) {
      throw new ConductorError('EXISTS', `task ${taskId} is being taken up here already`, { retryable: true })
    }
    const { onClosed, admit, release } = reservation
    try {
      const worker = await this.#foundWorkers.takeOver(found, { signal, onClosed })
      // Whoever else asks for it from now on finds it followed.
      admit(worker)
      worker.follow(found.inspection, from)
      return worker
    } catch (error) {
      release()
      throw error
    }
  }
}

function newTaskId(): string {
  return `worker-${Date.now().toString(36)}-${randomBytes(4).toString('hex')}`
}
