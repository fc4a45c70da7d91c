import pLimit from 'p-limit'
import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import type { Outcome } from '../protocol/outcome.js'
import { signalSchema } from '../signals.js'
import type { ManifestStore } from '../stores/manifest-store.js'
import type { StoreTier } from '../stores/result-store.js'
import type { TaskIndex, TaskUsage } from '../stores/task-index.js'
import type { TierProblem } from './read-tiers.js'

const CONCURRENT_REQUESTS = 16

/** Places that know tasks. */
export interface TasksContext {
  readonly indexes: readonly TaskIndex[]
  readonly manifests: ManifestStore | undefined
}

/** A task as it lies in its stores. */
export interface TaskSummary {
  readonly taskId: string
  /** `sealed` once its conductor has written down how it ended. */
  readonly state: 'sealed' | 'unsealed'
  /** When its manifest was written last, which is when it was sealed or results of it were deleted; unsealed, when its newest result was stored. */
  readonly updatedAt: Date
  /** Undefined unless sealed. */
  readonly sealedAt: Date | undefined
  /** Undefined unless sealed. */
  readonly outcome: Outcome | undefined
  /** Sealed, those of the manifest. Undefined where nobody knows. */
  readonly resultCount: number | undefined
  /** Bytes of the same. */
  readonly sizeBytes: number | undefined
  /** Where it was found. */
  readonly tiers: readonly StoreTier[]
}

/** Options for a listing of tasks. */
export interface TasksOptions extends CallOptions {
  /** At most so many. */
  readonly limit?: number | undefined
  /** Only what was updated before a moment, or comes after a task in the list: pass the last one seen for the next page. */
  readonly before?: Date | Pick<TaskSummary, 'taskId' | 'updatedAt'> | undefined
}

/** Tasks, newest first, and beside them the places that could not be asked. */
export type TaskList = TaskSummary[] & { readonly unavailable: readonly TierProblem[] }

/**
 * All tasks, newest first. Costs a request for every thousand manifests and one for every thousand tasks, one for every thousand
 * results of each unsealed task, and for each sealed task that is read one HEAD of its manifest.
 */
export interface Tasks extends AsyncIterable<TaskSummary> {
  /** Rejects only when no place could answer. */
  list(): Promise<TaskList>
  /** Asks for each sealed task only shortly before it is reached; throws at the end when a place could not answer. */
  [Symbol.asyncIterator](): AsyncIterator<TaskSummary>
}

/** A task found, before its manifest is asked. */
export interface FoundTask {
  readonly taskId: string
  readonly sealed: boolean
  readonly updatedAt: Date
  readonly tiers: readonly StoreTier[]
  readonly usage: Pick<TaskUsage, 'resultCount' | 'sizeBytes'> | undefined
}

/** @internal */
export const tasksOptionsSchema = z.strictObject({
  signal: signalSchema,
  limit: z.number().int().positive().optional(),
  before: z.union([z.date(), z.object({ taskId: z.string(), updatedAt: z.date() })]).optional(),
})

/** The tasks of some places. */
export function createTasks(context: TasksContext, options: TasksOptions): Tasks {
  const checked = checkOptions('tasks', tasksOptionsSchema, options)
  const { signal, limit } = checked

  async function* read(unavailable: TierProblem[]): AsyncGenerator<TaskSummary, void, undefined> {
    const onUnavailable = (problem: TierProblem): void => void unavailable.push(problem)
    const found = await findTasks(context, { signal, onUnavailable })
    const wanted = found.filter(startingAfter(checked.before)).slice(0, limit)
    // Several are asked at once, yet they come out in order, and none is asked long before it is wanted.
    const ahead: Promise<TaskSummary>[] = []
    try {
      for (const task of wanted) {
        const next = summarize(context, task, onUnavailable, signal)
        next.catch(() => {})
        ahead.push(next)
        if (ahead.length >= CONCURRENT_REQUESTS) yield await (ahead.shift() as Promise<TaskSummary>)
      }
      for (const next of ahead) yield await next
    } finally {
      await Promise.allSettled(ahead)
    }
  }

  return {
    list: async () => {
      const unavailable: TierProblem[] = []
      const tasks: TaskSummary[] = []
      for await (const task of read(unavailable)) tasks.push(task)
      return Object.assign(tasks, { unavailable })
    },
    [Symbol.asyncIterator]: async function* () {
      const unavailable: TierProblem[] = []
      yield* read(unavailable)
      const unknown = unavailable.filter(({ error }) => error.code !== 'UNSUPPORTED')
      if (unknown.length > 0) throw unlisted(unknown)
    },
  }
}

/** How tasks are looked for. */
export interface FindTasksOptions extends CallOptions {
  readonly startsWith?: string | undefined
  readonly matches?: ((taskId: string) => boolean) | undefined
  readonly onUnavailable: (problem: TierProblem) => void
}

/** Every task of every place, newest first. A place that cannot answer is reported; rejects when none could. */
export async function findTasks(
  context: TasksContext,
  { signal, startsWith, matches, onUnavailable }: FindTasksOptions,
): Promise<FoundTask[]> {
  const found = await collectTasks(context, { signal, startsWith, matches, onUnavailable })
  const limit = pLimit(CONCURRENT_REQUESTS)
  const measured = await Promise.all(
    [...found.values()].map((task) => limit(() => measure(task, onUnavailable, signal))),
  )
  return measured.filter((task) => task !== undefined).sort(newestFirst)
}

/** The same without their times, which an unsealed task costs a request. Only their ids are told, in the order of their keys. */
export async function findTaskIds(context: TasksContext, options: FindTasksOptions): Promise<string[]> {
  return [...(await collectTasks(context, options)).keys()]
}

interface Collected {
  readonly taskId: string
  sealed: boolean
  updatedAt: Date | undefined
  usage: FoundTask['usage']
  readonly indexes: Set<TaskIndex>
}

async function collectTasks(
  { indexes }: TasksContext,
  { signal, startsWith, matches, onUnavailable }: FindTasksOptions,
): Promise<Map<string, Collected>> {
  if (indexes.length === 0) {
    throw new ConductorError(
      'UNSUPPORTED',
      'tasks can be listed in S3 or over HTTP, and neither is configured',
    )
  }
  const tasks = new Map<string, Collected>()
  const problems: TierProblem[] = []
  await Promise.all(
    indexes.map(async (index) => {
      try {
        for await (const entry of index.listTasks({ signal, startsWith })) {
          const { taskId, sealed, updatedAt, usage } = entry
          if (matches?.(taskId) === false) continue
          let task = tasks.get(taskId)
          if (task === undefined) {
            task = { taskId, sealed: false, updatedAt: undefined, usage: undefined, indexes: new Set() }
            tasks.set(taskId, task)
          }
          task.indexes.add(index)
          task.sealed ||= sealed
          task.usage ??= usage
          if (updatedAt !== undefined && (task.updatedAt === undefined || task.updatedAt < updatedAt)) {
            task.updatedAt = updatedAt
          }
        }
      } catch (error) {
        if (!isConductorError(error)) throw error
        const problem = { key: undefined, store: index.name, tier: index.tier, error }
        problems.push(problem)
        onUnavailable(problem)
      }
    }),
  )
  if (problems.length === indexes.length) throw unlisted(problems)
  return tasks
}

/** Gives `undefined` for what has no result and no manifest, such as a prefix with only junk in it. */
async function measure(
  { taskId, sealed, updatedAt, usage, indexes }: Collected,
  onUnavailable: (problem: TierProblem) => void,
  signal: AbortSignal | undefined,
): Promise<FoundTask | undefined> {
  const tiers = [...new Set([...indexes].map(({ tier }) => tier))]
  if (updatedAt !== undefined) return { taskId, sealed, updatedAt, usage, tiers }
  for (const index of indexes) {
    try {
      const measured = await index.measure(taskId, { signal })
      if (measured !== undefined)
        return { taskId, sealed, updatedAt: measured.updatedAt, usage: measured, tiers }
    } catch (error) {
      if (!isConductorError(error)) throw error
      onUnavailable({ key: undefined, taskId, store: index.name, tier: index.tier, error })
    }
  }
  return undefined
}

async function summarize(
  { manifests }: TasksContext,
  { taskId, sealed, updatedAt, tiers, usage }: FoundTask,
  onUnavailable: (problem: TierProblem) => void,
  signal: AbortSignal | undefined,
): Promise<TaskSummary> {
  let summary: Awaited<ReturnType<ManifestStore['summarize']>>
  if (sealed && manifests !== undefined) {
    try {
      summary = await manifests.summarize(taskId, { signal })
    } catch (error) {
      if (!isConductorError(error)) throw error
      onUnavailable({ key: undefined, taskId, store: manifests.name, tier: 's3', error })
    }
  }
  return {
    taskId,
    state: sealed ? 'sealed' : 'unsealed',
    updatedAt,
    sealedAt: summary?.sealedAt,
    outcome: summary?.outcome,
    resultCount: summary?.resultCount ?? usage?.resultCount,
    sizeBytes: summary?.sizeBytes ?? usage?.sizeBytes,
    tiers,
  }
}

function newestFirst(
  a: Pick<FoundTask, 'taskId' | 'updatedAt'>,
  b: Pick<FoundTask, 'taskId' | 'updatedAt'>,
): number {
  const later = b.updatedAt.getTime() - a.updatedAt.getTime()
  return later !== 0 ? later : a.taskId < b.taskId ? -1 : a.taskId > b.taskId ? 1 : 0
}

function startingAfter(before: TasksOptions['before']): (task: FoundTask) => boolean {
  if (before === undefined) return () => true
  if (before instanceof Date) return ({ updatedAt }) => updatedAt < before
  return (task) => newestFirst(before, task) < 0
}

function unlisted(problems: readonly TierProblem[]): ConductorError {
  const said = problems.map(({ error }) => error.message).join('; ')
  const [code, ...others] = new Set(problems.map(({ error }) => error.code))
  const common = code !== undefined && others.length === 0 ? code : 'UNAVAILABLE'
  return new ConductorError(common, `cannot list all tasks: ${said}`, {
    retryable: problems.some(({ error }) => error.retryable),
    cause: problems[0]?.error,
  })
}
