import type { JsonObject, JsonValue } from '../protocol/record.js'
import type { ResultFilter } from '../results/filter.js'
import type { StoreTier } from '../stores/result-store.js'
import { oneOf } from './one-of.js'
import { UsageError } from './usage-error.js'

/** Options that narrow results. */
export const filterOptions = {
  name: { type: 'string' },
  since: { type: 'string' },
  until: { type: 'string' },
  metadata: { type: 'string', multiple: true },
  tier: { type: 'string' },
} as const

/** What {@link filterOptions} came to. */
export interface FilterValues {
  readonly name?: string | undefined
  readonly since?: string | undefined
  readonly until?: string | undefined
  readonly metadata?: readonly string[] | undefined
  readonly tier?: string | undefined
}

const TIERS: readonly StoreTier[] = ['s3', 'http', 'volume', 'sandbox', 'directory']

/** Empty when nothing is narrowed; throws a usage error for what is malformed. */
export function filterOf({ name, since, until, metadata, tier }: FilterValues): ResultFilter {
  return {
    ...(name === undefined ? {} : { name }),
    ...(since === undefined ? {} : { since: moment('--since', since) }),
    ...(until === undefined ? {} : { until: moment('--until', until) }),
    ...(metadata === undefined ? {} : { metadata: pairs(metadata) }),
    ...(tier === undefined ? {} : { tier: oneOf('--tier', TIERS, tier) }),
  }
}

function moment(option: string, text: string): Date {
  const at = new Date(text)
  // Date itself takes many other things for a time.
  if (/^\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:\d\d)?)?$/.test(text) && !Number.isNaN(at.getTime())) return at
  throw new UsageError(`${option} takes a time such as 2026-01-14T12:00:00Z (got ${JSON.stringify(text)})`)
}

function pairs(words: readonly string[]): JsonObject {
  const found = words.map((word): [string, JsonValue] => {
    const sign = word.indexOf('=')
    if (sign < 1) throw new UsageError(`--metadata takes KEY=VALUE (got ${JSON.stringify(word)})`)
    return [word.slice(0, sign), parseValue(word.slice(sign + 1))]
  })
  return Object.fromEntries(found)
}

/** Numbers, booleans and whatever else is JSON as such; everything else is text. */
function parseValue(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue
  } catch {
    return text
  }
}
