import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { checkOptions } from '../check-options.js'
import { ARCHIVE_SUFFIX, parseKey, parseTimestamp } from '../protocol/key.js'
import type { JsonObject } from '../protocol/record.js'
import type { StoreTier } from '../stores/result-store.js'
import { globMatcher } from './glob.js'
import type { Result } from './result.js'

/** Which results are meant. Narrowing twice means both. */
export interface ResultFilter {
  /** Glob over result names, as a shell's: `checkpoint-*`. An archived directory also matches without `.tar.gz`. */
  readonly name?: string | undefined
  /** Results whose key's timestamp is at or after this moment (whole seconds). */
  readonly since?: Date | undefined
  /** Results whose key's timestamp is before this moment. */
  readonly until?: Date | undefined
  /** Results whose metadata holds all these values, or of whose metadata the function says yes. */
  readonly metadata?: JsonObject | ((metadata: JsonObject) => boolean) | undefined
  /** Results that this tier holds, whatever others do. */
  readonly tier?: StoreTier | undefined
}

type MetadataFilter = NonNullable<ResultFilter['metadata']>

/** @internal */
export const resultFilterSchema = z.strictObject({
  name: z.string().min(1).optional(),
  since: z.date().optional(),
  until: z.date().optional(),
  metadata: z
    .custom<MetadataFilter>(
      (value) =>
        typeof value === 'function' || (typeof value === 'object' && value !== null && !Array.isArray(value)),
      'must be an object or a function',
    )
    .optional(),
  tier: z.enum(['s3', 'http', 'volume', 'sandbox', 'directory']).optional(),
})

/** A filter ready for use. */
export interface CompiledFilter {
  /** Decides by the key alone, before anything is fetched. */
  readonly matchesKey: (key: string) => boolean
  /** Decides by the rest. */
  readonly matchesResult: (result: Result) => boolean
  /** Whether {@link matchesKey} decides alone. */
  readonly readsKeyOnly: boolean
  /** Whether {@link matchesResult} reads metadata, which must then be fetched. */
  readonly readsMetadata: boolean
}

/** Throws `INVALID_OPTION` at once for a filter that is malformed. */
export function compileFilter(filter: ResultFilter): CompiledFilter {
  const { name, since, until, metadata, tier } = checkOptions('filter', resultFilterSchema, filter)
  const matches = name === undefined ? undefined : globMatcher(name)
  const matchesMetadata = metadata === undefined ? undefined : metadataTest(metadata)
  return {
    matchesKey: (key) => {
      const parts = parseKey(key)
      if (parts === undefined) return false
      const at = parseTimestamp(parts.timestamp)?.getTime() ?? 0
      if (since !== undefined && at < Math.floor(since.getTime() / 1000) * 1000) return false
      if (until !== undefined && at >= until.getTime()) return false
      if (matches === undefined || matches(parts.name)) return true
      return parts.name.endsWith(ARCHIVE_SUFFIX) && matches(parts.name.slice(0, -ARCHIVE_SUFFIX.length))
    },
    matchesResult: (result) =>
      (tier === undefined || result.tiers.includes(tier)) &&
      // Metadata that could not be fetched is reported as such; here it matches nothing.
      (matchesMetadata === undefined || (result.isDescribed && matchesMetadata(result.metadata))),
    readsKeyOnly: tier === undefined && matchesMetadata === undefined,
    readsMetadata: matchesMetadata !== undefined,
  }
}

function metadataTest(wanted: MetadataFilter): (metadata: JsonObject) => boolean {
  if (typeof wanted === 'function') return (metadata) => wanted(metadata) === true
  return (metadata) =>
    Object.entries(wanted).every(
      ([name, value]) => Object.hasOwn(metadata, name) && isDeepStrictEqual(metadata[name], value),
    )
}
