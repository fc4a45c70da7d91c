import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import type { Manifest } from '../protocol/manifest.js'
import type { ResultStore, StoreTier } from '../stores/result-store.js'
import type { ResultsContext } from './context.js'
import type { TierProblem } from './read-tiers.js'

const CONCURRENT_DELETIONS = 16

/** What is to be deleted, as it was listed. */
export interface Deletable {
  readonly key: string
  readonly size: number
  /** Names of the stores that are known to hold it. */
  readonly locations: readonly string[]
}

/** A result that is on no tier any more. */
export interface DeletedResult {
  readonly key: string
  readonly sizeBytes: number
  /** Where it was, by the listing that it came from or as the tier itself says; empty when it was gone already. */
  readonly tiers: readonly StoreTier[]
}

/** A result that a tier may still hold. */
export interface FailedDeletion {
  readonly key: string
  /** Where it was deleted all the same. */
  readonly tiers: readonly StoreTier[]
  /** What each tier said that failed. */
  readonly problems: readonly TierProblem[]
}

/** How results are deleted. */
export interface DeleteOptions extends CallOptions {
  /** Says of a key that an earlier deletion has begun with whether this one is to end it. */
  readonly unfinished?: ((key: string) => boolean) | undefined
}

/** What became of a deletion. */
export interface DeleteReport {
  readonly deleted: readonly DeletedResult[]
  /** Deleting these again ends what was begun. */
  readonly failed: readonly FailedDeletion[]
  /** Tiers that could not be asked what they hold, or cannot delete at all and are not known to hold any of it. */
  readonly unavailable: readonly TierProblem[]
}

/**
 * Deletes results of one task from every tier, and from its manifest.
 *
 * A crash between any two steps does no harm: first the manifest says which keys are being deleted, from when on listings go by
 * what the stores hold; then the results go, from spools before remote tiers, so that nobody delivers them again; at last the
 * manifest forgets them. Whatever is interrupted is ended by deleting again.
 */
export async function deleteResults(
  context: ResultsContext,
  listed: readonly Deletable[],
  { signal, unfinished }: DeleteOptions,
): Promise<DeleteReport> {
  if (listed.length === 0 && unfinished === undefined) return { deleted: [], failed: [], unavailable: [] }
  const { taskId, manifests } = context
  const keys = new Set(listed.map(({ key }) => key))
  const manifest = await manifests?.update(taskId, (found) => found && announce(found, keys), { signal })
  const wanted = [...listed, ...leftOver(manifest, keys, unfinished)]
  if (wanted.length === 0) return { deleted: [], failed: [], unavailable: [] }
  const recorded = (await context.recorded?.(manifest, { signal })) ?? []
  const stores = inDeletionOrder([...(await context.stores({ signal })), ...recorded])
  const unavailable = new Map<string, TierProblem>()
  const outcomes = await deleteEverywhere(wanted, stores, unavailable, signal)
  const deleted = outcomes.filter((outcome) => !('problems' in outcome)) as DeletedResult[]
  const failed = outcomes.filter((outcome) => 'problems' in outcome)
  const gone = new Set(deleted.map(({ key }) => key))
  // Not after long: some stores take a condition and write all the same.
  const present = wanted.length === 1 && isDeleting(manifest, wanted) ? manifest : undefined
  try {
    // Also where none was before: the task may have been sealed meanwhile.
    await manifests?.update(taskId, (found) => found && forget(found, gone), { signal, present })
  } catch (error) {
    if (!isConductorError(error) || manifests === undefined) throw error
    // Nothing shows what is gone, since the manifest still says that it is being deleted.
    unavailable.set(manifests.name, { key: undefined, store: manifests.name, tier: 's3', error })
  }
  return { deleted, failed, unavailable: [...unavailable.values()] }
}

/** Deletes one result; rejects, naming the tiers that failed. */
export async function deleteResult(
  context: ResultsContext,
  wanted: Deletable,
  { signal }: CallOptions,
): Promise<DeletedResult> {
  const { deleted, failed } = await deleteResults(context, [wanted], { signal })
  const [failure] = failed
  if (failure === undefined) return deleted[0] as DeletedResult
  throw asError(failure)
}

/** The error that a failed deletion stands for. */
function asError({ key, tiers, problems }: FailedDeletion): ConductorError {
  const errors = problems.map(({ error }) => error)
  const said = problems.map(({ store, error }) => `${store}: ${error.message}`).join('; ')
  const elsewhere = tiers.length === 0 ? '' : `; it is gone from ${tiers.join(', ')}`
  const [code, ...others] = new Set(errors.map((error) => error.code))
  return new ConductorError(
    code !== undefined && others.length === 0 ? code : 'UNAVAILABLE',
    `cannot delete ${key} everywhere: ${said}${elsewhere}`,
    { retryable: errors.some(({ retryable }) => retryable), cause: new AggregateError(errors) },
  )
}

const orders: Readonly<Record<StoreTier, number>> = { sandbox: 0, volume: 0, directory: 0, http: 1, s3: 2 }

function inDeletionOrder(stores: readonly ResultStore[]): ResultStore[] {
  return [...stores].sort((a, b) => orders[a.tier] - orders[b.tier])
}

/** One place after the other, so that of each result nothing is gone from a later one while an earlier one may deliver it. */
async function deleteEverywhere(
  wanted: readonly Deletable[],
  stores: readonly ResultStore[],
  unavailable: Map<string, TierProblem>,
  signal: AbortSignal | undefined,
): Promise<(DeletedResult | FailedDeletion)[]> {
  const found = wanted.map((one) => ({ one, tiers: new Set<StoreTier>(), problems: [] as TierProblem[] }))
  for (const store of stores) {
    const ends = await deleteFrom(store, wanted, signal)
    for (const { one, tiers, problems } of found) {
      const { key, locations } = one
      const end = ends.get(key)
      if (end === true) tiers.add(store.tier)
      if (!isConductorError(end)) continue
      const problem = { key, store: store.name, tier: store.tier, error: end }
      if (end.code !== 'UNSUPPORTED' || locations.includes(store.name)) problems.push(problem)
      else unavailable.set(store.name, { ...problem, key: undefined })
    }
  }
  return found.map(({ one: { key, size }, tiers, problems }) =>
    problems.length > 0 ? { key, tiers: [...tiers], problems } : { key, sizeBytes: size, tiers: [...tiers] },
  )
}

/** Whether each was there, or why it may still be. */
async function deleteFrom(
  store: ResultStore,
  wanted: readonly Deletable[],
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, boolean | ConductorError>> {
  const all = wanted.map(({ key, locations }) => ({ key, listed: locations.includes(store.name) }))
  if (store.deleteMany !== undefined && all.length > 1) return store.deleteMany(all, { signal })
  const ends = new Map<string, boolean | ConductorError>()
  const deleteOne = async ({ key, listed }: (typeof all)[number]): Promise<void> => {
    try {
      ends.set(key, await store.delete(key, { signal, listed }))
    } catch (error) {
      if (!isConductorError(error)) throw error
      ends.set(key, error)
    }
  }
  const limit = pLimit(CONCURRENT_DELETIONS)
  const settled = await Promise.allSettled(all.map((one) => limit(() => deleteOne(one))))
  for (const end of settled) if (end.status === 'rejected') throw end.reason
  return ends
}

/** What the manifest says is being deleted, and no listing shows any more. */
function leftOver(
  manifest: Manifest | undefined,
  listed: ReadonlySet<string>,
  unfinished: DeleteOptions['unfinished'],
): Deletable[] {
  const { deleting = [], results = [] } = manifest ?? {}
  if (deleting === 'all' || unfinished === undefined) return []
  const sizes = new Map(results.map(({ key, size }) => [key, size]))
  return deleting.flatMap((key) =>
    listed.has(key) || !unfinished(key) ? [] : [{ key, size: sizes.get(key) ?? 0, locations: [] }],
  )
}

/** Only of a complete manifest's list anybody takes it that what stands there exists. */
function announce(manifest: Manifest, keys: ReadonlySet<string>): Manifest | undefined {
  const { complete, deleting = [], results } = manifest
  if (!complete || deleting === 'all') return undefined
  const known = new Set(deleting)
  const more = results.flatMap(({ key }) => (keys.has(key) && !known.has(key) ? [key] : []))
  return more.length === 0 ? undefined : { ...manifest, deleting: [...deleting, ...more] }
}

/** Whether the manifest is one in which these have just been announced, or were before. */
function isDeleting(manifest: Manifest | undefined, wanted: readonly Deletable[]): boolean {
  const { deleting = [] } = manifest ?? {}
  return deleting !== 'all' && wanted.every(({ key }) => deleting.includes(key))
}

function forget(manifest: Manifest, gone: ReadonlySet<string>): Manifest | undefined {
  const { deleting, results, ...rest } = manifest
  const left = results.filter(({ key }) => !gone.has(key))
  const still = deleting === 'all' ? deleting : deleting?.filter((key) => !gone.has(key))
  if (left.length === results.length && still?.length === deleting?.length) return undefined
  return { ...rest, ...(still === undefined || still.length === 0 ? {} : { deleting: still }), results: left }
}
