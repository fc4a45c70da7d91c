import type { z } from 'zod'
import { ConductorError } from './errors.js'

/** Validates what a user passed; throws `INVALID_OPTION` with one line that names each wrong option and the rule. */
export function checkOptions<S extends z.ZodType>(what: string, schema: S, value: unknown): z.output<S> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map(describeIssue)
  throw new ConductorError('INVALID_OPTION', `${what}: ${problems.join('; ')}`, { cause: parsed.error })
}

function describeIssue(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') {
    return `unknown option ${issue.keys.map((key) => JSON.stringify(key)).join(', ')}`
  }
  const said =
    issue.code === 'invalid_key' ? issue.issues.map(({ message }) => message).join(', ') : issue.message
  const path = issue.path.map(String).join('.')
  return path === '' ? said : `${path}: ${said}`
}
