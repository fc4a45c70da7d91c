import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { ConductorError } from '../errors.js'
import { signalSchema } from '../signals.js'
import { type DuplicatedResult, withoutDuplicates } from './dedupe.js'
import type { DeleteReport } from './delete-results.js'
import { type DownloadOptions, downloadResults } from './download.js'
import type { DownloadReport } from './download-report.js'
import { compileFilter, type ResultFilter } from './filter.js'
import { newestOf } from './newest.js'
import type { TierProblem } from './read-tiers.js'
import type { Result } from './result.js'
import { incomplete, type ResultSource } from './result-source.js'

/** Options for a listing. */
export interface ListResultsOptions extends CallOptions {
  /** Whether metadata and digest are fetched for each result; without, key, size and tiers are known. @default true */
  readonly metadata?: boolean | undefined
  /** Throws when any tier that can list does not answer, instead of reporting it in `unavailable`. @default false */
  readonly strict?: boolean | undefined
  /** At most so many, the first in key order. */
  readonly limit?: number | undefined
}

/** Results in key order, and beside them the tiers that could not be asked. */
export type ResultList = Result[] & {
  /** Empty when every tier answered; otherwise the list may lack what only those tiers hold. */
  readonly unavailable: readonly TierProblem[]
  /** With `dedupe`: results of the list whose bytes others have as well, which were left out. */
  readonly duplicates: readonly DuplicatedResult[]
}

/** Results over all tiers, one entry per key. Works while the worker runs and after it is gone. */
export interface Results extends AsyncIterable<Result> {
  /** The same results, narrowed. */
  (filter: ResultFilter): Results
  /** Rejects only when no tier could answer, or with `strict`. */
  list(options?: ListResultsOptions): Promise<ResultList>
  /** The result with that key; undefined when it is absent for certain. */
  get(key: string, options?: CallOptions): Promise<Result | undefined>
  /** The newest result, of that name (a glob) if one is given; undefined when there is none. Rejects when a tier that may hold a newer one did not answer. */
  latest(name?: string, options?: CallOptions): Promise<Result | undefined>
  /**
   * Saves every result as `{dir}/{timestamp}-{name}`, or `{dir}/{task_id}/{timestamp}-{name}` for those of several tasks, each
   * appearing once it is whole and verified. Names that a file system may take for the same one are told apart by a digest:
   * `{timestamp}-{name}` becomes `{timestamp}-{stem}~{digest}.{ending}` for all but the first in key order, on every file system. What is there and whole is not fetched again; what is there in part is gone on with.
   * One that fails does not hold up the others: at the end it rejects with a `DownloadError`, which has the report.
   */
  download(dir: string, options?: DownloadOptions): Promise<DownloadReport>
  /**
   * Deletes every result, of those that the filter admits if one is given, on every tier and in the manifest. What cannot be deleted
   * is reported, and does not hold up the rest; the same call again ends what was begun. Rejects when no tier could answer.
   */
  delete(filter?: ResultFilter, options?: CallOptions): Promise<DeleteReport>
  /** Pages lazily; throws at the end when a tier could not answer. */
  [Symbol.asyncIterator](): AsyncIterator<Result>
}

/** How results are seen. */
export interface ResultsView {
  readonly filters: readonly ResultFilter[]
  /** Leaves out results whose bytes an older one has; costs that all are listed before the first is shown. */
  readonly dedupe?: 'sha256' | undefined
}

const listOptionsSchema = z.strictObject({
  signal: signalSchema,
  metadata: z.boolean().default(true),
  strict: z.boolean().default(false),
  limit: z.number().int().positive().optional(),
})

/** Results of a source, seen through the given filters. */
export function createResults(source: ResultSource, view: ResultsView = { filters: [] }): Results {
  const { filters, dedupe } = view
  const compiled = filters.map(compileFilter)
  const matches = (key: string): boolean => compiled.every(({ matchesKey }) => matchesKey(key))
  const wanted = (result: Result): boolean => compiled.every(({ matchesResult }) => matchesResult(result))
  const decidedByKey = compiled.every((filter) => filter.readsKeyOnly)
  const readsMetadata = compiled.some((filter) => filter.readsMetadata)

  const read = (
    { signal, metadata }: CallOptions & { readonly metadata: boolean },
    unavailable: TierProblem[],
  ): AsyncIterable<Result> => {
    const listed = source.list({
      signal,
      metadata: metadata || readsMetadata || dedupe !== undefined,
      matches,
      onUnavailable: (problem) => unavailable.push(problem),
    })
    return filters.length === 0 ? listed : only(listed)
  }

  async function* only(listed: AsyncIterable<Result>): AsyncGenerator<Result, void, undefined> {
    for await (const result of listed) if (wanted(result)) yield result
  }

  const list = async (options: ListResultsOptions = {}): Promise<ResultList> => {
    const { signal, metadata, strict, limit } = checkOptions('list', listOptionsSchema, options)
    const unavailable: TierProblem[] = []
    const all: Result[] = []
    for await (const result of read({ signal, metadata }, unavailable)) {
      all.push(result)
      if (dedupe === undefined && all.length === limit) break
    }
    if (strict && unavailable.some(isUnknown)) throw incomplete(source.label, unavailable)
    const { found, duplicates } =
      dedupe === undefined ? { found: all, duplicates: [] } : withoutDuplicates(all, limit)
    return Object.assign(found, { unavailable, duplicates })
  }

  const get = async (key: string, options: CallOptions = {}): Promise<Result | undefined> => {
    const result = await source.find(key, options)
    return result !== undefined && matches(key) && wanted(result) ? result : undefined
  }

  const latest = async (name?: string, options: CallOptions = {}): Promise<Result | undefined> => {
    const narrowed = name === undefined ? self : self({ name })
    const found = await narrowed.list({ ...options, metadata: false, strict: true })
    return newestOf(found, options)
  }

  const remove = async (filter?: ResultFilter, options: CallOptions = {}): Promise<DeleteReport> => {
    if (filter !== undefined) return self(filter).delete(undefined, options)
    if (dedupe !== undefined) {
      throw new ConductorError(
        'INVALID_OPTION',
        'delete: results without their duplicates cannot be deleted; leave dedupe out to delete all of them',
      )
    }
    const { signal } = options
    const found = await list({ signal, metadata: false })
    const unfinished = decidedByKey ? matches : undefined
    const report = await source.delete(found, { signal, unfinished })
    return { ...report, unavailable: [...found.unavailable, ...report.unavailable] }
  }

  const download = async (dir: string, options: DownloadOptions = {}): Promise<DownloadReport> => {
    // What each must be comes along with its bytes.
    const found = await list({ signal: options.signal, metadata: false })
    const unknown = found.unavailable.filter(isUnknown)
    const missing = unknown.flatMap(({ key, error }) => (key === undefined ? [] : [{ key, error }]))
    if (missing.length < unknown.length) throw incomplete(source.label, unknown)
    return downloadResults({ found, missing }, dir, source.pathOf, options)
  }

  async function* iterate(): AsyncGenerator<Result, void, undefined> {
    if (dedupe !== undefined) {
      yield* await list({ strict: true })
      return
    }
    const unavailable: TierProblem[] = []
    yield* read({ metadata: true }, unavailable)
    const unknown = unavailable.filter(isUnknown)
    if (unknown.length > 0) throw incomplete(source.label, unknown)
  }

  const self: Results = Object.assign(
    (filter: ResultFilter): Results => createResults(source, { ...view, filters: [...filters, filter] }),
    {
      list,
      get,
      latest,
      download,
      delete: remove,
      [Symbol.asyncIterator]: iterate,
    },
  )
  return self
}

/**
 * Whether something may be missing that waiting could bring. A tier that never can list, such as a server that only takes the POST,
 * is told of as such, and so is one that has another result under a key.
 */
function isUnknown({ error }: TierProblem): boolean {
  return error.code !== 'UNSUPPORTED' && error.code !== 'EXISTS'
}
