import type { Conductor } from '../conductor/conductor.js'
import { ConductorError } from '../errors.js'
import { assertKey } from '../protocol/key.js'
import type { Result } from '../results/result.js'
import type { Results } from '../results/results.js'
import { type FilterValues, filterOf, filterOptions } from './filter-options.js'
import { type ReadingValues, readingOf, readingOptions } from './reading-options.js'
import { UsageError } from './usage-error.js'

/** Options by which every action on several results says which it means, and where they are looked for. */
export const resultOptions = {
  tasks: { type: 'string' },
  ...filterOptions,
  ...readingOptions,
  json: { type: 'boolean' },
} as const

/** What {@link resultOptions} came to. */
export interface ResultValues extends FilterValues, ReadingValues {
  readonly tasks?: string | undefined
  readonly unique?: boolean | undefined
}

/** The results of the task that is named, or of those that `--tasks` admits. */
export function chooseResults(
  conductor: Conductor,
  positionals: readonly string[],
  values: ResultValues,
  usage: string,
): Results {
  const { tasks, unique } = values
  const [taskId, ...more] = positionals
  if ((taskId === undefined) === (tasks === undefined) || more.length > 0) throw new UsageError(usage)
  const filter = filterOf(values)
  const reading = readingOf(values)
  if (tasks !== undefined || unique === true) {
    if (reading.sandboxes !== undefined || reading.afterReading !== undefined) {
      throw new UsageError('sandboxes are read of one task at a time, without --tasks and --unique')
    }
    const dedupe = unique === true ? 'sha256' : undefined
    return conductor.results({ tasks: tasks ?? [taskId ?? ''], ...filter, dedupe })
  }
  const results = conductor.results(taskId ?? '', reading)
  return Object.keys(filter).length === 0 ? results : results(filter)
}

/** The result of a key; rejects with `NOT_FOUND` when no tier has it. */
export async function findResult(
  conductor: Conductor,
  key: string,
  values: ReadingValues,
  signal: AbortSignal,
): Promise<Result> {
  const results = conductor.results(assertKey(key).taskId, readingOf(values))
  const result = await results.get(key, { signal })
  if (result === undefined) throw new ConductorError('NOT_FOUND', `no tier has ${key}`)
  return result
}
