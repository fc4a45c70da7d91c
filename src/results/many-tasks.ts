import pLimit from 'p-limit'
import { z } from 'zod'
import { checkOptions } from '../check-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { assertKey, assertTaskId, compareKeys, taskIdProblem } from '../protocol/key.js'
import { joinSignals } from '../signals.js'
import type { ResultsContext } from './context.js'
import { type DeleteOptions, type DeleteReport, deleteResults } from './delete-results.js'
import { type ResultFilter, resultFilterSchema } from './filter.js'
import { findResult } from './find-result.js'
import { globMatcher } from './glob.js'
import type { ListingOptions } from './list-results.js'
import type { TierProblem } from './read-tiers.js'
import type { Result } from './result.js'
import { incomplete, pathByTask, type ResultSource, taskSource } from './result-source.js'
import { createResults, type Results } from './results.js'
import { findTaskIds, type TasksContext } from './tasks.js'

/** Tasks that are listed at once; each holds its results until it is its turn. */
const CONCURRENT_TASKS = 8

/** Which results of which tasks are meant. */
export interface ResultsQuery extends ResultFilter {
  /** Task ids, or a glob over them, such as `worker-*`; a glob costs the listing of all tasks that begin like it. */
  readonly tasks: string | readonly string[]
  /** Leaves out results whose bytes an older one has, and names them in the list's `duplicates`. */
  readonly dedupe?: 'sha256' | undefined
}

/** Where results of several tasks come from. */
export interface ManyTasksContext extends TasksContext {
  /** The places of one task. */
  of(taskId: string): ResultsContext
}

const taskId = z.string().refine((id) => taskIdProblem(id) === undefined, 'must be task ids')

/** @internal */
export const resultsQuerySchema = resultFilterSchema.extend({
  tasks: z.union([z.string().min(1), z.array(taskId).readonly()]),
  dedupe: z.literal('sha256').optional(),
})

/** The results of several tasks as one. */
export function createManyResults(context: ManyTasksContext, query: ResultsQuery): Results {
  const { tasks, dedupe, ...filter } = checkOptions('results', resultsQuerySchema, query)
  return createResults(manySource(context, tasks), { filters: [filter], dedupe })
}

function manySource(context: ManyTasksContext, tasks: string | readonly string[]): ResultSource {
  const { matches, startsWith } = typeof tasks === 'string' ? compileGlob(tasks) : exactly(tasks)
  const ids = async (options: Pick<ListingOptions, 'signal' | 'onUnavailable'>): Promise<string[]> => {
    const found =
      typeof tasks === 'string'
        ? await findTaskIds(context, { ...options, startsWith, matches })
        : [...new Set(tasks)]
    // As their keys sort: the slash comes after some of the characters of an id.
    return found.sort((a, b) => compareKeys(`${a}/`, `${b}/`))
  }
  return {
    label: typeof tasks === 'string' ? tasks : `${tasks.length} tasks`,
    list: (options) => listMany(context, ids, options),
    find: async (key, options) => {
      const { taskId } = assertKey(key)
      if (!matches(taskId)) {
        throw new ConductorError('INVALID_OPTION', `${key} is not a key of any of these tasks`)
      }
      return findResult(context.of(taskId), key, options)
    },
    delete: async (results, options) => {
      const byTask = new Map<string, Result[]>()
      // Also of those that no listing shows anything of any more there may be something to end.
      if (options.unfinished !== undefined) {
        const onUnavailable = (): void => undefined
        for (const id of await ids({ signal: options.signal, onUnavailable })) byTask.set(id, [])
      }
      for (const result of results) {
        const group = byTask.get(result.taskId)
        if (group === undefined) byTask.set(result.taskId, [result])
        else group.push(result)
      }
      return deleteByTask(context, byTask, options)
    },
    pathOf: pathByTask,
  }
}

/** Deletes of each task what is given; one of which not even the manifest can be written does not hold up the others. */
async function deleteByTask(
  context: ManyTasksContext,
  byTask: ReadonlyMap<string, readonly Result[]>,
  options: DeleteOptions,
): Promise<DeleteReport> {
  const deleteOf = async (taskId: string, group: readonly Result[]): Promise<DeleteReport> => {
    const of = context.of(taskId)
    try {
      return await deleteResults(of, group, options)
    } catch (error) {
      if (!isConductorError(error)) throw error
      const problem = { taskId, store: of.manifests?.name ?? taskId, tier: 's3', error } as const
      return {
        deleted: [],
        failed: group.map(({ key }) => ({ key, tiers: [], problems: [{ ...problem, key }] })),
        unavailable: group.length > 0 ? [] : [{ ...problem, key: undefined }],
      }
    }
  }
  const limit = pLimit(CONCURRENT_TASKS)
  // One after the other, since each has many requests under way itself; but for those of which only the manifest is to be read.
  const some = pLimit(1)
  const reports = await Promise.all(
    [...byTask].map(([taskId, group]) => (group.length > 0 ? some : limit)(() => deleteOf(taskId, group))),
  )
  return {
    deleted: reports.flatMap(({ deleted }) => deleted),
    failed: reports.flatMap(({ failed }) => failed),
    unavailable: reports.flatMap(({ unavailable }) => unavailable),
  }
}

type FindIds = (options: Pick<ListingOptions, 'signal' | 'onUnavailable'>) => Promise<string[]>

async function* listMany(
  context: ManyTasksContext,
  findIds: FindIds,
  options: ListingOptions,
): AsyncGenerator<Result, void, undefined> {
  const { signal, onUnavailable } = options
  const stop = new AbortController()
  const inner = joinSignals(stop.signal, signal)
  const limit = pLimit(CONCURRENT_TASKS)
  const problems: TierProblem[] = []
  const ids = await findIds({ signal, onUnavailable })
  let silent = 0
  let refusal: ConductorError | undefined
  const listOne = async (taskId: string): Promise<Result[]> => {
    inner.throwIfAborted()
    const found: Result[] = []
    const report = (problem: TierProblem): void => {
      problems.push({ ...problem, taskId })
      onUnavailable({ ...problem, taskId })
    }
    try {
      const listed = taskSource(context.of(taskId)).list({ ...options, signal: inner, onUnavailable: report })
      for await (const result of listed) found.push(result)
    } catch (error) {
      if (!isConductorError(error)) throw error
      // What its places said has been reported; whether the others are silent as well is seen at the end.
      silent += 1
      refusal ??= error
    }
    return found
  }
  // No more tasks are read ahead than are listed at once, whatever the consumer does.
  const ahead: Promise<Result[]>[] = []
  try {
    for (const taskId of ids) {
      const next = limit(() => listOne(taskId))
      next.catch(() => {})
      ahead.push(next)
      if (ahead.length >= CONCURRENT_TASKS) yield* await (ahead.shift() as Promise<Result[]>)
    }
    for (const next of ahead) yield* await next
  } finally {
    stop.abort()
    await Promise.allSettled(ahead)
  }
  if (ids.length === 0 || silent < ids.length) return
  // Not even asked.
  if (problems.length === 0 && refusal !== undefined) throw refusal
  throw incomplete(`${ids.length} tasks`, problems)
}

interface TaskMatcher {
  readonly matches: (taskId: string) => boolean
  readonly startsWith: string
}

/** A task id's glob, and how every id that it admits begins. */
export function compileGlob(glob: string): TaskMatcher {
  const special = glob.search(/[*?[\](){}!+@|\\]/)
  return { matches: globMatcher(glob), startsWith: special < 0 ? glob : glob.slice(0, special) }
}

function exactly(ids: readonly string[]): TaskMatcher {
  for (const id of ids) assertTaskId(id)
  const known = new Set(ids)
  return { matches: (id) => known.has(id), startsWith: '' }
}
