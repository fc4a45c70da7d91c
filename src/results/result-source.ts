import { join } from 'node:path'
import type { CallOptions } from '../call-options.js'
import { ConductorError } from '../errors.js'
import { assertKey, type KeyParts } from '../protocol/key.js'
import { spoolFileName } from '../protocol/spool-layout.js'
import type { ResultStore } from '../stores/result-store.js'
import type { ResultsContext } from './context.js'
import { type DeleteOptions, type DeleteReport, deleteResults } from './delete-results.js'
import { findResult } from './find-result.js'
import { type ListingOptions, listResults } from './list-results.js'
import { localName } from './local-name.js'
import type { TierProblem } from './read-tiers.js'
import type { Result } from './result.js'

/** Where results come from: one task, or several. */
export interface ResultSource {
  /** For messages: whose results they are. */
  readonly label: string
  /** In key order. Reports each tier that cannot answer; throws at the end when none could. */
  list(options: ListingOptions): AsyncIterable<Result>
  /** Rejects with `INVALID_OPTION` for a key that can be none of these. */
  find(key: string, options: CallOptions): Promise<Result | undefined>
  /** Deletes results that it listed. */
  delete(results: readonly Result[], options: DeleteOptions): Promise<DeleteReport>
  /** Where in a folder a downloaded result belongs. */
  pathOf(parts: KeyParts): string
}

/** The results of one task. */
export function taskSource(context: ResultsContext): ResultSource {
  return {
    label: context.taskId,
    list: (options) => listTask(context, options),
    find: async (key, options) => {
      const { taskId } = assertKey(key)
      if (taskId !== context.taskId) {
        throw new ConductorError('INVALID_OPTION', `${key} is not a key of task ${context.taskId}`)
      }
      return findResult(context, key, options)
    },
    delete: (results, options) => deleteResults(context, results, options),
    pathOf: ({ timestamp, name }) => localName(spoolFileName(timestamp, name)),
  }
}

/** The same in a folder for each task. */
export function pathByTask({ taskId, timestamp, name }: KeyParts): string {
  return join(localName(taskId), localName(spoolFileName(timestamp, name)))
}

async function* listTask(
  context: ResultsContext,
  options: ListingOptions,
): AsyncGenerator<Result, void, undefined> {
  const problems: TierProblem[] = []
  const onUnavailable = (problem: TierProblem): void => {
    problems.push(problem)
    options.onUnavailable(problem)
    context.onProblem?.(problem)
  }
  let isEmpty = true
  let recorded: readonly ResultStore[] = []
  const onRecorded = (stores: readonly ResultStore[]): void => {
    recorded = stores
  }
  for await (const result of listResults(context, { ...options, onUnavailable, onRecorded })) {
    isEmpty = false
    yield result
  }
  if (problems.length === 0) return
  const failed = new Set(problems.filter(({ key }) => key === undefined).map(({ store }) => store))
  const stores = [...(await context.stores({ signal: options.signal })), ...recorded]
  // That a last resort has nothing answers for nothing.
  const noneAnswered = stores.every(
    ({ name, lastResort }) => failed.has(name) || (lastResort === true && isEmpty),
  )
  if (noneAnswered) throw incomplete(context.taskId, problems)
}

/** What is said of a list that lacks, or may lack, something. */
export function incomplete(label: string, problems: readonly TierProblem[]): ConductorError {
  const said = problems.slice(0, 10).map(({ store, error }) => `${store}: ${error.message}`)
  const more = problems.length > said.length ? ` and ${problems.length - said.length} more` : ''
  const [code, ...others] = new Set(problems.map(({ error }) => error.code))
  const common = code !== undefined && others.length === 0 ? code : 'UNAVAILABLE'
  return new ConductorError(common, `cannot list all results of ${label}: ${said.join('; ')}${more}`, {
    retryable: problems.some(({ error }) => error.retryable),
    cause: problems[0]?.error,
  })
}
