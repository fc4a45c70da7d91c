import { randomBytes } from 'node:crypto'
import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { ConductorError } from '../errors.js'
import { assertTaskId } from '../protocol/key.js'
import { createManyResults, type ManyTasksContext, type ResultsQuery } from '../results/many-tasks.js'
import { type PruneOptions, type PruneReport, pruneTasks } from '../results/prune.js'
import { taskSource } from '../results/result-source.js'
import { createResults, type Results } from '../results/results.js'
import { createTasks, type Tasks, type TasksOptions } from '../results/tasks.js'
import { E2bSandboxes } from '../sandbox/e2b-sandboxes.js'
import { ensureVolume } from '../sandbox/e2b-volume.js'
import type { RemoteSandbox } from '../sandbox/remote-sandbox.js'
import { openS3Location, type S3Location } from '../stores/s3/s3-location.js'
import { LEASE_MS } from './lease.js'
import {
  assertAccessPossible,
  type ConductorOptions,
  type ResolvedOptions,
  type ResolvedSpawn,
  resolveOptions,
  type SpawnOptions,
  spawnOptionsSchema,
} from './options.js'
import { placesOf, type TaskPlaces } from './places.js'
import { provision } from './provision.js'
import { hasSandbox, taskIndexes } from './retention.js'
import { Worker } from './worker.js'

/** Keys of E2B metadata by which a conductor finds its sandboxes again. */
const METADATA = { conductor: 'stu-conductor', task: 'stu-task' } as const

/** Spawns workers in sandboxes and reads what they leave. Owns its workers and its S3 client until `close()`. */
export class Conductor implements AsyncDisposable {
  readonly #options: ResolvedOptions
  readonly #sandboxes: E2bSandboxes
  readonly #s3: S3Location | undefined
  readonly #limit: ReturnType<typeof pLimit>
  readonly #workers = new Map<string, Worker>()
  readonly #taken = new Set<string>()
  readonly #volumes = new Map<string, Promise<void>>()
  readonly #closing = new AbortController()

  /** Reads the environment for what is left out. Throws `INVALID_OPTION` at once; nothing is sent yet. */
  constructor(options: ConductorOptions = {}) {
    this.#options = resolveOptions(options)
    this.#sandboxes = new E2bSandboxes(this.#options.e2b)
    this.#s3 = this.#options.s3 === undefined ? undefined : openS3Location(this.#options.s3)
    this.#limit = pLimit(this.#options.maxWorkers)
  }

  /** Workers that are not terminated, by task id. */
  get workers(): ReadonlyMap<string, Worker> {
    return this.#workers
  }

  /** How many workers wait for a place. */
  get queuedCount(): number {
    return this.#limit.pendingCount
  }

  /**
   * Creates a sandbox, equips it and starts its command. Resolves once the command runs; waits first while `maxWorkers` are
   * alive. The caller ends the worker with `terminate()`.
   */
  async spawnWorker(options: SpawnOptions = {}): Promise<Worker> {
    const checked = checkOptions('spawnWorker', spawnOptionsSchema, options)
    const spawn: ResolvedSpawn = { ...checked, taskId: checked.taskId ?? newTaskId() }
    const { taskId } = spawn
    assertAccessPossible(this.#options, spawn.access ?? this.#options.access)
    if (this.#taken.has(taskId)) {
      throw new ConductorError('EXISTS', `a worker for task ${taskId} is already here`)
    }
    this.#closing.signal.throwIfAborted()
    this.#taken.add(taskId)
    const stop =
      spawn.signal === undefined
        ? this.#closing.signal
        : AbortSignal.any([spawn.signal, this.#closing.signal])
    return new Promise<Worker>((resolve, reject) => {
      const giveUp = (): void => {
        this.#taken.delete(taskId)
        reject(stop.reason)
      }
      // Waiting ends at once; once it is this worker's turn, what was begun is undone first.
      stop.addEventListener('abort', giveUp, { once: true })
      // A worker holds its place from the creation of its sandbox until that is gone.
      void this.#limit(async () => {
        if (stop.aborted) return
        stop.removeEventListener('abort', giveUp)
        try {
          let closed = (): void => {}
          const gone = new Promise<void>((done) => {
            closed = done
          })
          resolve(await this.#bringUp(spawn, stop, closed))
          await gone
        } catch (error) {
          reject(error)
        } finally {
          this.#taken.delete(taskId)
        }
      })
    })
  }

  /** A task's results, from any process at any time, whether or not its worker is known here; or those of several tasks as one. */
  results(tasks: string | ResultsQuery): Results {
    return typeof tasks === 'string' ? this.#resultsOf(tasks) : createManyResults(this.#tasks(), tasks)
  }

  /** All tasks, newest first. Rejects with `UNSUPPORTED` when they are read where no place can list tasks. */
  tasks(options: TasksOptions = {}): Tasks {
    return createTasks(this.#tasks(), options)
  }

  /** Deletes whole tasks that are old, from every tier. A failure of one is reported and does not hold up the rest. */
  async prune(options: PruneOptions): Promise<PruneReport> {
    const isAlive = async (taskId: string, call: CallOptions): Promise<boolean> =>
      this.#taken.has(taskId) ||
      (options.unsealed === true && (await hasSandbox(this.#sandboxes, { [METADATA.task]: taskId }, call)))
    return pruneTasks({ ...this.#tasks(), isAlive }, options)
  }

  #tasks(): ManyTasksContext {
    return {
      ...taskIndexes(this.#options, this.#s3),
      of: (taskId) => {
        const { manifests, stores } = this.#placesOf(taskId, this.#options.volume)
        const worker = this.#workers.get(taskId)
        return worker?.resultsContext ?? { taskId, manifests, stores: async () => stores }
      },
    }
  }

  #resultsOf(taskId: string): Results {
    assertTaskId(taskId)
    const worker = this.#workers.get(taskId)
    if (worker !== undefined) return worker.results
    const places = this.#placesOf(taskId, this.#options.volume)
    return createResults(
      taskSource({ taskId, manifests: places.manifests, stores: async () => places.stores }),
    )
  }

  /** Refuses new workers, terminates the present ones side by side, and frees connections. Rejects when one could not be terminated; that one lives on. */
  async close(): Promise<void> {
    this.#closing.abort(new ConductorError('CLOSED', 'the conductor was closed'))
    const ends = await Promise.allSettled([...this.#workers.values()].map((worker) => worker.terminate()))
    const failures = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as unknown] : []))
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1)
      throw new AggregateError(failures, `${failures.length} workers could not be terminated`)
    this.#s3?.close()
  }

  /** `close()`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #bringUp(spawn: ResolvedSpawn, signal: AbortSignal, onClosed: () => void): Promise<Worker> {
    signal.throwIfAborted()
    const { taskId } = spawn
    const places = this.#placesOf(taskId, spawn.volume ?? this.#options.volume)
    const { envs, files } = await provision(this.#options, this.#s3, spawn, { signal })
    if (places.volume !== undefined) await this.#ensureVolume(places.volume)
    const sandbox = await this.#sandboxes.create({
      template: spawn.template ?? this.#options.template,
      timeoutMs: LEASE_MS,
      metadata: { ...spawn.metadata, [METADATA.conductor]: this.#options.id, [METADATA.task]: taskId },
      envs,
      ...(places.volume === undefined ? {} : { volumeMounts: { [places.localDir]: places.volume } }),
      signal,
    })
    let worker: Worker | undefined
    try {
      await sandbox.writeFiles(files, { signal })
      worker = new Worker({
        sandbox,
        spawn,
        places,
        onClosed: () => {
          this.#workers.delete(taskId)
          onClosed()
        },
      })
      this.#workers.set(taskId, worker)
      if (spawn.command !== undefined) {
        await worker.start(spawn.command, { outputs: spawn.outputs })
      }
      signal.throwIfAborted()
      return worker
    } catch (error) {
      this.#workers.delete(taskId)
      await discard(sandbox, error)
      throw error
    }
  }

  #placesOf(taskId: string, volume: string | undefined): TaskPlaces {
    return placesOf(taskId, this.#options, this.#s3, volume)
  }

  /** Once per volume, however many workers start side by side. */
  async #ensureVolume(name: string): Promise<void> {
    let made = this.#volumes.get(name)
    if (made === undefined) {
      made = ensureVolume(name, this.#options.e2b)
      this.#volumes.set(name, made)
      made.catch(() => this.#volumes.delete(name))
    }
    await made
  }
}

/** Kills a sandbox that never became a worker. */
async function discard(sandbox: RemoteSandbox, because: unknown): Promise<void> {
  try {
    await sandbox.kill()
  } catch (error) {
    const cause = new AggregateError([because, error])
    throw new ConductorError('UNAVAILABLE', `sandbox ${sandbox.id} could neither be equipped nor killed`, {
      cause,
    })
  }
}

function newTaskId(): string {
  return `worker-${Date.now().toString(36)}-${randomBytes(4).toString('hex')}`
}
