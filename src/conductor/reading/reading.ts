import type { CallOptions } from '../../call-options.js'
import { checkOptions } from '../../check-options.js'
import { ConductorError } from '../../errors.js'
import { ENV } from '../../protocol/environment.js'
import { assertTaskId } from '../../protocol/key.js'
import type { ResultsContext } from '../../results/context.js'
import { createManyResults, type ManyTasksContext, type ResultsQuery } from '../../results/many-tasks.js'
import { type PruneContext, type PruneOptions, type PruneReport, pruneTasks } from '../../results/prune.js'
import type { TierProblem } from '../../results/result.js'
import { taskSource } from '../../results/result-source.js'
import { createResults, type Results } from '../../results/results.js'
import { createTasks, type Tasks, type TasksOptions } from '../../results/tasks.js'
import { SandboxVisits } from '../../sandbox/sandbox-visits.js'
import type { ResultStore } from '../../stores/result-store.js'
import type { S3Location } from '../../stores/s3/s3-location.js'
import { S3Manifests } from '../../stores/s3/s3-manifests.js'
import { S3Store } from '../../stores/s3/s3-store.js'
import type { ResolvedOptions } from '../options.js'
import type { TaskPlaces } from '../places.js'
import type { TaskLookup } from '../task-lookup.js'
import type { Worker } from '../worker/worker.js'
import { foundSandboxes } from './found-sandboxes.js'
import { recordedVolumes } from './recorded-volumes.js'
import { type RehomeOptions, type RehomeReport, rehomeResults } from './rehome.js'
import { type TaskResultsOptions, taskResultsOptionsSchema } from './results-options.js'
import { taskIndexes } from './task-indexes.js'

/** What reading needs to know of the conductor. */
export interface ReadingParts {
  readonly options: ResolvedOptions
  readonly s3: S3Location | undefined
  readonly lookup: TaskLookup
  readonly workers: ReadonlyMap<string, Worker>
}

/** The conductor's side that reads what tasks left, and deletes it; it needs none of their workers. */
export class Reading {
  readonly #parts: ReadingParts
  readonly #visits: SandboxVisits

  constructor(parts: ReadingParts) {
    this.#parts = parts
    this.#visits = new SandboxVisits(parts.options.e2b)
  }

  results(tasks: string | ResultsQuery, options: TaskResultsOptions = {}): Results {
    const { onProblem, ...reading } = checkOptions('results', taskResultsOptionsSchema, options)
    if (typeof tasks !== 'string') {
      const context = this.#context()
      return createManyResults({ ...context, of: (taskId) => telling(context.of(taskId), onProblem) }, tasks)
    }
    assertTaskId(tasks)
    const worker = this.#parts.workers.get(tasks)
    if (worker !== undefined && onProblem === undefined) return worker.results
    if (worker !== undefined) return createResults(taskSource(telling(worker.resultsContext, onProblem)))
    const { lookup } = this.#parts
    const places = lookup.placesOf(tasks)
    const from = { options: this.#parts.options, provider: lookup.sandboxes, visits: this.#visits }
    const found = foundSandboxes(tasks, places, from, reading)
    return createResults(taskSource(telling(this.#contextOf(tasks, places, found), onProblem)))
  }

  tasks(options: TasksOptions): Tasks {
    return createTasks(this.#context(), options)
  }

  async prune(options: PruneOptions): Promise<PruneReport> {
    const { lookup, workers } = this.#parts
    const isAlive = async (taskId: string, call: CallOptions): Promise<boolean> => {
      if (workers.has(taskId)) return true
      if (options.unsealed === true) return (await lookup.findSandboxes(taskId, call)).length > 0
      // A sealed task may have been begun again; until its end is written down once more, its intent is open.
      return (await lookup.placesOf(taskId).intents?.read(taskId, call))?.intent !== undefined
    }
    const forget: PruneContext['forget'] = async (taskId, call) =>
      lookup.placesOf(taskId).intents?.prune(taskId, call)
    return pruneTasks({ ...this.#context(), isAlive, forget }, options)
  }

  async rehome(options: RehomeOptions): Promise<RehomeReport> {
    const { s3 } = this.#parts
    const context = {
      s3: s3 === undefined ? undefined : new S3Store(s3),
      manifests: s3 === undefined ? undefined : new S3Manifests(s3),
      resultsOf: (tasks: string | readonly string[]) => this.results({ tasks }),
    }
    return rehomeResults(context, options)
  }

  /** Puts sandboxes back that were woken to be read. */
  async close(): Promise<void> {
    await this.#visits.close()
  }

  #context(): ManyTasksContext {
    const { options, s3, lookup, workers } = this.#parts
    return {
      ...taskIndexes(options, s3),
      of: (taskId) =>
        workers.get(taskId)?.resultsContext ?? this.#contextOf(taskId, lookup.placesOf(taskId), []),
    }
  }

  #contextOf(taskId: string, places: TaskPlaces, more: readonly ResultStore[]): ResultsContext {
    const { options } = this.#parts
    const stores = [...places.stores, ...more]
    return {
      taskId,
      manifests: places.manifests,
      decryptor: places.encryption?.decryptor,
      stores: async () => {
        if (stores.length > 0) return stores
        throw new ConductorError(
          'INVALID_OPTION',
          `there is no place to read results from: set ${ENV.s3Bucket} (s3), ${ENV.httpEndpoint} (http), volume, or E2B_API_KEY for what lies in sandboxes`,
        )
      },
      recorded: async (manifest, call) => recordedVolumes(taskId, { places, options }, manifest, call),
    }
  }
}

/** Has one more hear of problems. */
function telling(context: ResultsContext, onProblem: ResultsContext['onProblem']): ResultsContext {
  if (onProblem === undefined) return context
  const both = (problem: TierProblem): void => {
    context.onProblem?.(problem)
    onProblem(problem)
  }
  return { ...context, onProblem: both }
}
