import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { ConductorError } from '../errors.js'
import { assertKey } from '../protocol/key.js'
import { type DownloadedFile, type DownloadOptions, downloadResults } from './download.js'
import { compileFilter, type ResultFilter } from './filter.js'
import { findResult } from './find-result.js'
import { listResults, type ResultsContext } from './list-results.js'
import type { Result, TierProblem } from './result.js'

/** Options for a listing. */
export interface ListResultsOptions extends CallOptions {
  /** Whether metadata and digest are fetched for each result; without, key, size and tiers are known. @default true */
  readonly metadata?: boolean | undefined
  /** Throws when any tier that can list does not answer, instead of reporting it in `unavailable`. @default false */
  readonly strict?: boolean | undefined
  /** At most so many, the oldest first. */
  readonly limit?: number | undefined
}

/** Results in key order, and beside them the tiers that could not be asked. */
export type ResultList = Result[] & {
  /** Empty when every tier answered; otherwise the list may lack what only those tiers hold. */
  readonly unavailable: readonly TierProblem[]
}

/** A task's results, over all tiers, one entry per key. Works while the worker runs and after it is gone. */
export interface Results extends AsyncIterable<Result> {
  /** The same results, narrowed. */
  (filter: ResultFilter): Results
  /** Rejects only when no tier could answer, or with `strict`. */
  list(options?: ListResultsOptions): Promise<ResultList>
  /** The result with that key; undefined when it is absent for certain. */
  get(key: string, options?: CallOptions): Promise<Result | undefined>
  /** The newest result, of that name (a glob) if one is given; undefined when there is none. */
  latest(name?: string, options?: CallOptions): Promise<Result | undefined>
  /** Saves every result as `{dir}/{timestamp}-{name}`, each appearing once it is whole and verified. */
  download(dir: string, options?: DownloadOptions): Promise<readonly DownloadedFile[]>
  /** Pages lazily; throws at the end when a tier could not answer. */
  [Symbol.asyncIterator](): AsyncIterator<Result>
}

const listOptionsSchema = z.strictObject({
  signal: z.instanceof(AbortSignal).optional(),
  metadata: z.boolean().default(true),
  strict: z.boolean().default(false),
  limit: z.number().int().positive().optional(),
})

/** Results of one task, seen through the given filters. */
export function createResults(context: ResultsContext, filters: readonly ResultFilter[] = []): Results {
  const compiled = filters.map(compileFilter)
  const matches = (key: string): boolean => compiled.every(({ matchesKey }) => matchesKey(key))
  const wanted = (result: Result): boolean => compiled.every(({ matchesResult }) => matchesResult(result))
  const readsMetadata = compiled.some((filter) => filter.readsMetadata)

  const read = (
    { signal, metadata }: CallOptions & { readonly metadata: boolean },
    unavailable: TierProblem[],
  ): AsyncIterable<Result> => {
    const listed = listResults(context, {
      signal,
      metadata: metadata || readsMetadata,
      matches,
      onUnavailable: (problem) => {
        unavailable.push(problem)
        context.onProblem?.(problem)
      },
    })
    return filters.length === 0 ? listed : only(listed)
  }

  async function* only(listed: AsyncIterable<Result>): AsyncGenerator<Result, void, undefined> {
    for await (const result of listed) if (wanted(result)) yield result
  }

  const list = async (options: ListResultsOptions = {}): Promise<ResultList> => {
    const { signal, metadata, strict, limit } = checkOptions('list', listOptionsSchema, options)
    const unavailable: TierProblem[] = []
    const found: Result[] = []
    for await (const result of read({ signal, metadata }, unavailable)) {
      found.push(result)
      if (found.length === limit) break
    }
    const stores = await context.stores({ signal })
    const failed = new Set(unavailable.filter(({ key }) => key === undefined).map(({ store }) => store))
    // That a last resort has nothing answers for nothing.
    const noneAnswered = stores.every(
      ({ name, lastResort }) => failed.has(name) || (lastResort === true && found.length === 0),
    )
    if (unavailable.length > 0 && ((strict && unavailable.some(isUnknown)) || noneAnswered)) {
      throw incomplete(context.taskId, unavailable)
    }
    return Object.assign(found, { unavailable })
  }

  const get = async (key: string, options: CallOptions = {}): Promise<Result | undefined> => {
    const { taskId } = assertKey(key)
    if (taskId !== context.taskId) {
      throw new ConductorError('INVALID_OPTION', `${key} is not a key of task ${context.taskId}`)
    }
    if (!matches(key)) return undefined
    const result = await findResult(context, key, options)
    return result !== undefined && wanted(result) ? result : undefined
  }

  const latest = async (name?: string, options: CallOptions = {}): Promise<Result | undefined> => {
    const narrowed = name === undefined ? self : self({ name })
    const found = await narrowed.list({ ...options, metadata: false })
    return found.at(-1)?.load(options)
  }

  async function* iterate(): AsyncGenerator<Result, void, undefined> {
    const unavailable: TierProblem[] = []
    yield* read({ metadata: true }, unavailable)
    const unknown = unavailable.filter(isUnknown)
    if (unknown.length > 0) throw incomplete(context.taskId, unknown)
  }

  const self: Results = Object.assign(
    (filter: ResultFilter): Results => createResults(context, [...filters, filter]),
    {
      list,
      get,
      latest,
      download: async (dir: string, options: DownloadOptions = {}) =>
        downloadResults(await list({ signal: options.signal, strict: true }), dir, options),
      [Symbol.asyncIterator]: iterate,
    },
  )
  return self
}

/** A tier that never can list, such as a server that only takes the POST, is told of as such; to wait for it would be to wait for ever. */
function isUnknown({ error }: TierProblem): boolean {
  return error.code !== 'UNSUPPORTED'
}

function incomplete(taskId: string, problems: readonly TierProblem[]): ConductorError {
  const said = problems.map(({ store, error }) => `${store}: ${error.message}`).join('; ')
  const [code, ...others] = new Set(problems.map(({ error }) => error.code))
  const common = code !== undefined && others.length === 0 ? code : 'UNAVAILABLE'
  return new ConductorError(common, `cannot list all results of ${taskId}: ${said}`, {
    retryable: problems.some(({ error }) => error.retryable),
    cause: problems[0]?.error,
  })
}
