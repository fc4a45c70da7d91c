import type { Conductor } from '../conductor/conductor.js'
import type { Results } from '../results/results.js'
import { UsageError } from './usage-error.js'

/** Options by which every action on several results says which it means. */
export const resultOptions = {
  tasks: { type: 'string' },
  name: { type: 'string' },
  json: { type: 'boolean' },
} as const

/** The results of the task that is named, or of those that `--tasks` admits. */
export function chooseResults(
  conductor: Conductor,
  positionals: readonly string[],
  {
    tasks,
    name,
    unique,
  }: {
    readonly tasks?: string | undefined
    readonly name?: string | undefined
    readonly unique?: boolean | undefined
  },
  usage: string,
): Results {
  const [taskId, ...more] = positionals
  if ((taskId === undefined) === (tasks === undefined) || more.length > 0) throw new UsageError(usage)
  if (tasks !== undefined || unique === true) {
    const dedupe = unique === true ? 'sha256' : undefined
    return conductor.results({ tasks: tasks ?? [taskId ?? ''], name, dedupe })
  }
  const results = conductor.results(taskId ?? '')
  return name === undefined ? results : results({ name })
}
