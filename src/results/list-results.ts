import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import type { Manifest } from '../protocol/manifest.js'
import { describeRecord, type ResultStore, type StoredEntry, type StoreTier } from '../stores/result-store.js'
import type { ResultsContext } from './context.js'
import { mergeByKey } from './merge.js'
import { otherResult } from './other-result.js'
import type { TierProblem } from './read-tiers.js'
import { Result } from './result.js'
import { sealedElsewhere, sealedRecords, tiersOf } from './sealed-elsewhere.js'

const CONCURRENT_HEADS = 16
/** Results at the end of a manifest's list that S3 lists all the same: what came late sorts among them, and a request yields 1,000. */
const LISTED_AGAIN = 900

/** What a listing reads. */
export interface ListingOptions extends CallOptions {
  /** Keys that are wanted; others cost no request of their own. */
  readonly matches: (key: string) => boolean
  /** Whether metadata and digests are fetched where a listing does not yield them. */
  readonly metadata: boolean
  /** Told which places the task's own documents name, before they are asked. */
  readonly onRecorded?: ((stores: readonly ResultStore[]) => void) | undefined
  /** Told of each tier that could not answer. */
  readonly onUnavailable: (problem: TierProblem) => void
}

type Found = StoredEntry & { readonly store: ResultStore }

/** Yields a task's results in key order, one per key with every tier that holds it. A tier that cannot answer is reported and passed over. */
export async function* listResults(
  context: ResultsContext,
  options: ListingOptions,
): AsyncGenerator<Result, void, undefined> {
  const { matches, metadata, signal } = options
  const failed = new Set<StoreTier>()
  const mute = new Set<StoreTier>()
  const onUnavailable = (problem: TierProblem): void => {
    if (problem.key === undefined) (problem.error.code === 'UNSUPPORTED' ? mute : failed).add(problem.tier)
    options.onUnavailable(problem)
  }
  const all = await context.stores({ signal })
  const manifest = await readManifest(context, onUnavailable, signal)
  const { recorded, problem } = await readRecorded(context, manifest, signal)
  if (problem !== undefined) onUnavailable(problem)
  options.onRecorded?.(recorded)
  const places = [...all, ...recorded]
  const stores = places.filter(({ lastResort }) => lastResort !== true || manifest?.complete !== true)
  const sources = stores.flatMap((store) => listStore(store, context.taskId, manifest, onUnavailable, signal))
  const sealed = new Map(manifest?.results.map((record) => [record.key, record]))
  const unseen = sealedRecords(manifest)
  const limit = pLimit(CONCURRENT_HEADS)

  const describe = (group: readonly Found[]): Result | Promise<Result> => {
    const { key, size } = group[0] as Found
    const record = sealed.get(key)
    // The manifest's word comes first: no worker can have changed it since.
    const description =
      record === undefined
        ? group.find((found) => found.description !== undefined)?.description
        : describeRecord(record)
    const stores = new Set<ResultStore>()
    for (const { store, description: there } of group) {
      const problem = otherResult(description, store, there)
      if (problem === undefined) stores.add(store)
      else onUnavailable(problem)
    }
    const result = new Result({
      key,
      size: description?.size ?? size,
      // Where every place has another than was sealed, that is what reading says.
      stores: stores.size > 0 ? [...stores] : group.map(({ store }) => store),
      description,
      context,
    })
    return !metadata || description !== undefined ? result : load(result, group)
  }

  const load = async (result: Result, group: readonly Found[]): Promise<Result> => {
    try {
      return await limit(() => result.load({ signal }))
    } catch (error) {
      if (!isConductorError(error)) throw error
      const [{ key, store }] = group as [Found]
      onUnavailable({ key, store: store.name, tier: store.tier, error })
      return result
    }
  }

  // Metadata is fetched for several results at once, yet they come out in order.
  const ahead: Promise<Result>[] = []
  try {
    for await (const group of mergeByKey(sources)) {
      const [first] = group
      if (first !== undefined) unseen.delete(first.key)
      if (first === undefined || !matches(first.key)) continue
      const next = describe(group)
      if (next instanceof Result && ahead.length === 0) {
        yield next
        continue
      }
      const later = Promise.resolve(next)
      later.catch(() => {})
      ahead.push(later)
      if (ahead.length >= CONCURRENT_HEADS) yield await (ahead.shift() as Promise<Result>)
    }
    for (const next of ahead) yield await next
  } finally {
    await Promise.allSettled(ahead)
  }
  const missing = [...unseen.keys()].filter(matches)
  if (missing.length === 0) return
  // Looked at once more: what was deleted while this was listed is not missing.
  const still = sealedRecords(await readManifest(context, onUnavailable, signal))
  const asked = { tiers: new Set(stores.map(({ tier }) => tier)), silent: mute }
  for (const key of missing) {
    const record = still.get(key)
    // That a tier failed has been said, and means that it may lie there.
    if (record === undefined || tiersOf(record).some((tier) => failed.has(tier))) continue
    const problem = sealedElsewhere(record, asked)
    if (problem !== undefined) onUnavailable(problem)
  }
}

async function readRecorded(
  context: ResultsContext,
  manifest: Manifest | undefined,
  signal: AbortSignal | undefined,
): Promise<{ readonly recorded: readonly ResultStore[]; readonly problem?: TierProblem }> {
  try {
    return { recorded: (await context.recorded?.(manifest, { signal })) ?? [] }
  } catch (error) {
    if (!isConductorError(error)) throw error
    return { recorded: [], problem: { key: undefined, store: 'intent', tier: 's3', error } }
  }
}

async function readManifest(
  context: ResultsContext,
  onUnavailable: ListingOptions['onUnavailable'],
  signal: AbortSignal | undefined,
): Promise<Manifest | undefined> {
  try {
    return await context.manifests?.read(context.taskId, { signal })
  } catch (error) {
    if (!isConductorError(error)) throw error
    onUnavailable({ key: undefined, store: 'manifest', tier: 's3', error })
    return undefined
  }
}

/** A store's own listing; of a completely sealed task that left thousands, the manifest stands for all but the last of them. */
function listStore(
  store: ResultStore,
  taskId: string,
  manifest: Manifest | undefined,
  onUnavailable: ListingOptions['onUnavailable'],
  signal: AbortSignal | undefined,
): AsyncIterable<Found>[] {
  if (store.tier !== 's3' || manifest?.complete !== true || manifest.deleting !== undefined) {
    return [guard(store, store.list(taskId, { signal }), onUnavailable)]
  }
  const held = manifest.results.filter(({ stored }) => stored.some(({ tier }) => tier === 's3'))
  const startAfter = held.at(-LISTED_AGAIN - 1)?.key
  return [
    guard(store, fromManifest(held), onUnavailable),
    guard(store, store.list(taskId, { signal, startAfter }), onUnavailable),
  ]
}

async function* fromManifest(records: Manifest['results']): AsyncGenerator<StoredEntry, void, undefined> {
  for (const { key, size } of records) yield { key, size }
}

/** Entries with their store, which end where it fails. Not a generator: of thousands, each would wait for several promises more. */
function guard(
  store: ResultStore,
  entries: AsyncIterable<StoredEntry>,
  onUnavailable: ListingOptions['onUnavailable'],
): AsyncIterable<Found> {
  return {
    [Symbol.asyncIterator]: () => {
      const iterator = entries[Symbol.asyncIterator]()
      return {
        next: async () => {
          try {
            const { done, value } = await iterator.next()
            return done ? END : { done: false, value: { ...value, store } }
          } catch (error) {
            if (!(error instanceof ConductorError)) throw error
            onUnavailable({ key: undefined, store: store.name, tier: store.tier, error })
            return END
          }
        },
        return: async () => {
          await iterator.return?.()
          return END
        },
      }
    },
  }
}

const END = { done: true, value: undefined } as const
