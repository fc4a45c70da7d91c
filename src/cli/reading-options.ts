import type { SandboxReading, TaskResultsOptions } from '../conductor/reading/results-options.js'
import type { AfterReading } from '../sandbox/sandbox-visits.js'
import { oneOf } from './one-of.js'

/** Options that say which sandboxes of a task are read, and what becomes of those that are woken for it. */
export const readingOptions = {
  sandboxes: { type: 'string' },
  'after-reading': { type: 'string' },
} as const

/** What {@link readingOptions} came to. */
export interface ReadingValues {
  readonly sandboxes?: string | undefined
  readonly 'after-reading'?: string | undefined
}

const SANDBOXES: readonly SandboxReading[] = ['none', 'running', 'paused']
const AFTER: readonly AfterReading[] = ['pause', 'kill', 'leave']

/** Throws a usage error for what is none of them. */
export function readingOf(values: ReadingValues): TaskResultsOptions {
  return {
    sandboxes: oneOf('--sandboxes', SANDBOXES, values.sandboxes),
    afterReading: oneOf('--after-reading', AFTER, values['after-reading']),
  }
}
