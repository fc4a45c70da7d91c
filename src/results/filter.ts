import picomatch from 'picomatch'
import { z } from 'zod'
import { checkOptions } from '../check-options.js'
import { ARCHIVE_SUFFIX, parseKey, parseTimestamp } from '../protocol/key.js'

/** Which results are meant. Narrowing twice means both. */
export interface ResultFilter {
  /** Glob over result names, as a shell's: `checkpoint-*`. An archived directory also matches without `.tar.gz`. */
  readonly name?: string | undefined
  /** Results whose key's timestamp is at or after this moment (whole seconds). */
  readonly since?: Date | undefined
  /** Results whose key's timestamp is before this moment. */
  readonly until?: Date | undefined
}

/** @internal */
export const resultFilterSchema = z.strictObject({
  name: z.string().min(1).optional(),
  since: z.date().optional(),
  until: z.date().optional(),
})

/** A test for keys; throws `INVALID_OPTION` at once for a filter that is malformed. */
export function compileFilter(filter: ResultFilter): (key: string) => boolean {
  const { name, since, until } = checkOptions('filter', resultFilterSchema, filter)
  const matches = name === undefined ? undefined : picomatch(name, { dot: true })
  return (key) => {
    const parts = parseKey(key)
    if (parts === undefined) return false
    const at = parseTimestamp(parts.timestamp)?.getTime() ?? 0
    if (since !== undefined && at < Math.floor(since.getTime() / 1000) * 1000) return false
    if (until !== undefined && at >= until.getTime()) return false
    if (matches === undefined || matches(parts.name)) return true
    return parts.name.endsWith(ARCHIVE_SUFFIX) && matches(parts.name.slice(0, -ARCHIVE_SUFFIX.length))
  }
}
