import pLimit from 'p-limit'
import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { type ConductorError, isConductorError } from '../errors.js'
import type { Manifest } from '../protocol/manifest.js'
import { signalSchema } from '../signals.js'
import type { ResultStore } from '../stores/result-store.js'
import type { TaskIndex } from '../stores/task-index.js'
import { allStores } from './context.js'
import { compileGlob, type ManyTasksContext } from './many-tasks.js'
import type { TierProblem } from './read-tiers.js'
import { type FoundTask, findTasks } from './tasks.js'

const CONCURRENT_TASKS = 4
const CONCURRENT_DELETIONS = 16
const DAY_MS = 86_400_000
const SEALED_AGAIN = 'it was sealed again meanwhile; what was old of it is gone'

/** Which tasks are forgotten. */
export interface PruneOptions extends CallOptions {
  /** Tasks sealed longer ago, by a clock in days; may be a fraction. */
  readonly olderThanDays: number
  /** Only these: task ids, or a glob over them. @default all */
  readonly tasks?: string | readonly string[] | undefined
  /** Also tasks that were never sealed, whose newest result is as old and that no sandbox lives for. @default false */
  readonly unsealed?: boolean | undefined
  /** Only says what would go. @default false */
  readonly dryRun?: boolean | undefined
  /** Called after each task. */
  readonly onProgress?: ((progress: PruneProgress) => void) | undefined
}

/** How far pruning has come. */
export interface PruneProgress {
  readonly doneTasks: number
  readonly totalTasks: number
  readonly results: number
  readonly sizeBytes: number
}

/** A task that is gone, or would be. */
export interface PrunedTask {
  readonly taskId: string
  readonly results: number
  /** Bytes on all tiers together. */
  readonly sizeBytes: number
}

/** What became of pruning. */
export interface PruneReport {
  readonly dryRun: boolean
  readonly tasks: readonly PrunedTask[]
  readonly results: number
  readonly sizeBytes: number
  /** Old enough, and left alone: why. */
  readonly skipped: readonly { readonly taskId: string; readonly reason: string }[]
  /** Not gone, or not everywhere; pruning again goes on with them. */
  readonly failed: readonly { readonly taskId: string; readonly error: ConductorError }[]
  /** Tiers that cannot tell what they hold. */
  readonly unavailable: readonly TierProblem[]
}

/** Tasks, and what lives of them. */
export interface PruneContext extends ManyTasksContext {
  /** Whether a worker of the task may still store something. */
  isAlive(taskId: string, options: CallOptions): Promise<boolean>
  /** Deletes what else is kept of a task that is gone, unless it was begun again at or after this moment. */
  forget(taskId: string, options: CallOptions & { readonly startedBefore: Date }): Promise<void>
}

/** @internal */
export const pruneOptionsSchema = z.strictObject({
  olderThanDays: z.number().nonnegative(),
  tasks: z.union([z.string().min(1), z.array(z.string())]).optional(),
  unsealed: z.boolean().default(false),
  dryRun: z.boolean().default(false),
  onProgress: z.custom<(progress: PruneProgress) => void>((value) => typeof value === 'function').optional(),
  signal: signalSchema,
})

/**
 * Deletes whole tasks that are old enough: on every tier, and the manifest last, so that what a crash interrupts is found and
 * ended by the next call. A task that has anything newer, or that lives, is left alone.
 */
export async function pruneTasks(context: PruneContext, options: PruneOptions): Promise<PruneReport> {
  const checked = checkOptions('prune', pruneOptionsSchema, options)
  const { signal, unsealed, dryRun, onProgress } = checked
  const cutoff = new Date(Date.now() - checked.olderThanDays * DAY_MS)
  const unavailable = new Map<string, TierProblem>()
  const onUnavailable = (problem: TierProblem): void => void unavailable.set(problem.store, problem)
  const found = await findTasks(context, { signal, ...wantedTasks(checked.tasks), onUnavailable })
  const candidates = found.filter(({ sealed, updatedAt }) => sealed || (unsealed && updatedAt < cutoff))
  const report = { tasks: [] as PrunedTask[], results: 0, sizeBytes: 0 }
  const skipped: PruneReport['skipped'][number][] = []
  const failed: PruneReport['failed'][number][] = []
  let doneTasks = 0
  const limit = pLimit(CONCURRENT_TASKS)
  const pruneOne = async (task: FoundTask): Promise<void> => {
    const { taskId } = task
    try {
      if (await isOld(context, task, cutoff, signal)) {
        const pruning = new TaskPruning(context, taskId, cutoff, onUnavailable, signal)
        const reason = await pruning.obstacle()
        if (reason !== undefined) skipped.push({ taskId, reason })
        else {
          const pruned = dryRun ? pruning.surveyed() : await pruning.run(task.sealed)
          if (pruned === 'sealed again') skipped.push({ taskId, reason: SEALED_AGAIN })
          else {
            report.tasks.push(pruned)
            report.results += pruned.results
            report.sizeBytes += pruned.sizeBytes
          }
        }
      }
    } catch (error) {
      if (!isConductorError(error)) throw error
      failed.push({ taskId, error })
    }
    doneTasks += 1
    onProgress?.({
      doneTasks,
      totalTasks: candidates.length,
      results: report.results,
      sizeBytes: report.sizeBytes,
    })
  }
  const ends = await Promise.allSettled(candidates.map((task) => limit(() => pruneOne(task))))
  for (const end of ends) if (end.status === 'rejected') throw end.reason
  return { dryRun, ...report, skipped, failed, unavailable: [...unavailable.values()] }
}

function wantedTasks(tasks: string | readonly string[] | undefined): {
  readonly startsWith?: string
  readonly matches?: (taskId: string) => boolean
} {
  if (tasks === undefined) return {}
  if (typeof tasks === 'string') return compileGlob(tasks)
  const ids = new Set(tasks)
  return { matches: (taskId) => ids.has(taskId) }
}

/** A sealed task is as old as its seal, also when results of it were deleted since. */
async function isOld(
  { manifests }: PruneContext,
  { taskId, sealed, updatedAt }: FoundTask,
  cutoff: Date,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  if (updatedAt < cutoff) return true
  if (!sealed || manifests === undefined) return false
  const summary = await manifests.summarize(taskId, { signal })
  return summary !== undefined && summary.sealedAt < cutoff
}

interface Holding {
  readonly store: ResultStore
  /** Where the store can be emptied at once. */
  readonly bulk: TaskIndex | undefined
  readonly keys: readonly string[]
}

/** Forgetting one task. */
class TaskPruning {
  readonly #context: PruneContext
  readonly #taskId: string
  readonly #cutoff: Date
  readonly #onUnavailable: (problem: TierProblem) => void
  readonly #signal: AbortSignal | undefined
  readonly #holdings: Holding[] = []
  readonly #keys = new Set<string>()
  #sizeBytes = 0
  #newest: Date | undefined

  constructor(
    context: PruneContext,
    taskId: string,
    cutoff: Date,
    onUnavailable: (problem: TierProblem) => void,
    signal: AbortSignal | undefined,
  ) {
    this.#context = context
    this.#taskId = taskId
    this.#cutoff = cutoff
    this.#onUnavailable = onUnavailable
    this.#signal = signal
  }

  /** Looks at what there is; says why it must stay, or `undefined`. */
  async obstacle(): Promise<string | undefined> {
    const signal = this.#signal
    if (await this.#context.isAlive(this.#taskId, { signal })) return 'its worker may still store results'
    for (const store of await allStores(this.#context.of(this.#taskId), { signal })) {
      try {
        await this.#survey(store)
      } catch (error) {
        if (!isConductorError(error) || error.code !== 'UNSUPPORTED') throw error
        this.#onUnavailable({ key: undefined, store: store.name, tier: store.tier, error })
      }
    }
    if (this.#newest === undefined || this.#newest < this.#cutoff) return undefined
    return `it has a result of ${this.#newest.toISOString()}`
  }

  /** What there is. */
  surveyed(): PrunedTask {
    return { taskId: this.#taskId, results: this.#keys.size, sizeBytes: this.#sizeBytes }
  }

  /** Deletes it; what another conductor seals of it meanwhile stays. */
  async run(sealed: boolean): Promise<PrunedTask | 'sealed again'> {
    const { manifests } = this.#context
    const signal = this.#signal
    let sealedAt: string | undefined
    if (sealed) {
      // From now on listings go by what the stores hold, which is what remains if this goes no further.
      const marked = await manifests?.update(
        this.#taskId,
        (manifest) =>
          manifest === undefined || manifest.deleting === 'all'
            ? undefined
            : { ...manifest, deleting: 'all' },
        { signal },
      )
      sealedAt = marked?.sealed_at
    }
    let sizeBytes = 0
    for (const holding of this.#holdings) sizeBytes += await this.#empty(holding)
    await this.#context.forget(this.#taskId, { startedBefore: this.#cutoff, signal })
    if (sealed && manifests !== undefined) {
      const isSame = ({ sealed_at }: Manifest): boolean => sealed_at === sealedAt
      if (!(await manifests.delete(this.#taskId, isSame, { signal }))) {
        await manifests.update(this.#taskId, (manifest) => manifest && this.#withoutGone(manifest), {
          signal,
        })
        return 'sealed again'
      }
    }
    return { taskId: this.#taskId, results: this.#keys.size, sizeBytes: Math.max(sizeBytes, this.#sizeBytes) }
  }

  #withoutGone({ deleting, results, ...rest }: Manifest): Manifest {
    const left = results.filter(({ key }) => !this.#keys.has(key))
    return { ...rest, ...(deleting === 'all' || deleting === undefined ? {} : { deleting }), results: left }
  }

  async #survey(store: ResultStore): Promise<void> {
    const bulk = this.#context.indexes.find((index) => index.clear !== undefined && index.name === store.name)
    const keys: string[] = []
    for await (const entry of store.list(this.#taskId, { signal: this.#signal })) {
      keys.push(entry.key)
      this.#keys.add(entry.key)
      this.#sizeBytes += entry.size
      if (bulk === undefined) this.#note(entry.description?.createdAt)
    }
    if (bulk !== undefined) {
      this.#note((await bulk.measure(this.#taskId, { signal: this.#signal }))?.updatedAt)
    }
    this.#holdings.push({ store, bulk, keys })
  }

  #note(at: Date | undefined): void {
    if (at !== undefined && (this.#newest === undefined || this.#newest < at)) this.#newest = at
  }

  /** Gives the bytes that are gone. */
  async #empty({ store, bulk, keys }: Holding): Promise<number> {
    const signal = this.#signal
    if (bulk?.clear !== undefined) {
      let sizeBytes = 0
      for await (const { size } of bulk.clear(this.#taskId, { storedBefore: this.#cutoff, signal })) {
        sizeBytes += size
      }
      return sizeBytes
    }
    const limit = pLimit(CONCURRENT_DELETIONS)
    const ends = await Promise.allSettled(keys.map((key) => limit(() => store.delete(key, { signal }))))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
    return 0
  }
}
