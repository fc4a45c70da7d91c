import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import type { ResultRecord, StoredAt } from '../../protocol/record.js'
import type { Result } from '../../results/result.js'
import { taskSource } from '../../results/result-source.js'
import { createResults } from '../../results/results.js'
import type { TaskPlaces } from '../places.js'
import type { Delivery } from './deliver.js'

/** A result's record as its stores tell it; undefined when none of them knows its digest. Says of no store that it holds it. */
export async function recordOf(result: Result, options: CallOptions = {}): Promise<ResultRecord | undefined> {
  await result.load(options)
  const { sha256 } = result
  if (sha256 === undefined) return undefined
  return {
    v: 1,
    task_id: result.taskId,
    timestamp: result.timestamp,
    name: result.name,
    key: result.key,
    size: result.size,
    sha256,
    content_type: result.storedType,
    metadata: result.metadata,
    created_at: result.createdAt.toISOString(),
    archive: result.archive,
    stored: [],
    errors: {},
  }
}

/**
 * What a task has beyond its sandboxes, but for what is known: the least that one which is gone has left. Tiers that cannot be
 * asked are passed over, since a loss is told all the same.
 */
export async function findDelivered(
  taskId: string,
  { stores, manifests, s3, http }: TaskPlaces,
  known: ReadonlySet<string>,
  options: CallOptions = {},
): Promise<Delivery[]> {
  const found: Delivery[] = []
  try {
    const results = createResults(taskSource({ taskId, manifests, stores: async () => stores }))
    for (const result of await results.list({ signal: options.signal })) {
      const record = known.has(result.key) ? undefined : await recordOf(result, options)
      if (record === undefined) continue
      const at = new Date().toISOString()
      const stored: StoredAt[] = []
      for (const store of [s3, http]) {
        if (store === undefined || !result.locations.includes(store.name)) continue
        stored.push({ tier: store.tier, location: `${store.name}/${result.key}`, at })
      }
      // Nobody saw what the worker stored, so that there is nothing to compare with what is there.
      found.push({
        record: { ...record, stored },
        tiers: result.tiers,
        verified: false,
        undelivered: undefined,
      })
    }
  } catch (error) {
    if (!isConductorError(error)) throw error
  }
  return found
}
