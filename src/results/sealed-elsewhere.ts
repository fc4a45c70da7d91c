import { ConductorError } from '../errors.js'
import type { Manifest } from '../protocol/manifest.js'
import type { ResultRecord } from '../protocol/record.js'
import type { StoreTier } from '../stores/result-store.js'
import type { TierProblem } from './read-tiers.js'

/** What became of asking a task's places. */
export interface AskedTiers {
  readonly tiers: ReadonlySet<StoreTier>
  /** Of these, those that cannot tell what they hold, now or ever. */
  readonly silent: ReadonlySet<StoreTier>
}

/** The records of what is sealed and not being deleted, by key. */
export function sealedRecords(manifest: Manifest | undefined): Map<string, ResultRecord> {
  if (manifest === undefined || manifest.deleting === 'all') return new Map()
  const deleting = new Set(manifest.deleting)
  return new Map(
    manifest.results.flatMap((record) => (deleting.has(record.key) ? [] : [[record.key, record] as const])),
  )
}

/** Where a result lies by its manifest: what no remote tier took was let go of only where its spool outlives the sandbox. */
export function tiersOf({ stored }: ResultRecord): readonly StoreTier[] {
  return stored.length === 0 ? ['volume'] : stored.map(({ tier }) => tier)
}

/** What is to be said of a result that is sealed and was found nowhere; undefined where that is no wonder. */
export function sealedElsewhere(
  record: ResultRecord,
  { tiers, silent }: AskedTiers,
): TierProblem | undefined {
  const { key } = record
  const lies = tiersOf(record)
  const asked = lies.filter((tier) => tiers.has(tier))
  // S3 said that it is gone: a lifecycle rule, or whoever owns the bucket, has removed it there.
  if (asked.includes('s3') && !silent.has('s3')) return undefined
  const [tier = 'volume'] = asked.length === 0 ? lies : asked
  const where =
    asked.length === 0
      ? 'lies where nobody was told to look'
      : asked.some((one) => silent.has(one))
        ? 'lies where it cannot be looked for'
        : 'is not where it lay'
  const error = new ConductorError(
    'UNAVAILABLE',
    `${key} was sealed, and ${where}: on a tier of kind ${tier}`,
  )
  return { key, store: tier, tier, error }
}
