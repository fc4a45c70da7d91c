import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { type ConductorError, isConductorError } from '../../errors.js'
import { DEATH_CERTIFICATE_NAME } from '../../protocol/death-certificate.js'
import type { ResultRecord, StoredAt } from '../../protocol/record.js'
import type { Result } from '../../results/result.js'
import { taskSource } from '../../results/result-source.js'
import { createResults } from '../../results/results.js'
import type { TaskPlaces } from '../places.js'
import type { Delivery } from './deliver.js'

const CONCURRENT_LOADS = 16

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

/** One of a task's sandboxes that is gone, as far as it can be told which results it left. */
export interface GoneSandbox {
  readonly spawnId: string
  readonly attempt: number
  /** ISO 8601. */
  readonly beganAt: string
  /** What was stored from then on is another's. */
  readonly overAt?: Date | undefined
  /** Keys that others are known to have left, or this one is known to have. */
  readonly others: ReadonlySet<string>
}

/** What a sandbox that is gone has left beyond itself, as far as its tiers could be asked. */
export interface FoundResults {
  readonly found: readonly Delivery[]
  /** Of a tier that may answer later, so that this may not be all. */
  readonly problem: ConductorError | undefined
}

/** Looks for what a sandbox that is gone has left beyond itself. Tiers that do not answer are passed over, and told of. */
export async function findDelivered(
  taskId: string,
  { stores, s3, http }: Pick<TaskPlaces, 'stores' | 's3' | 'http'>,
  gone: GoneSandbox,
  { signal }: CallOptions = {},
): Promise<FoundResults> {
  const found: Delivery[] = []
  let problem: ConductorError | undefined
  const note = (error: unknown): void => {
    // What nobody waited for is not absent.
    if (signal?.aborted || !isConductorError(error)) throw error
    if (error.retryable) problem ??= error
  }
  const toDelivery = (result: Result, record: ResultRecord): Delivery => {
    const at = new Date().toISOString()
    const stored: StoredAt[] = []
    for (const store of [s3, http]) {
      if (store === undefined || !result.locations.includes(store.name)) continue
      stored.push({ tier: store.tier, location: `${store.name}/${result.key}`, at })
    }
    // Nobody saw what the worker stored, so that there is nothing to compare with what is there.
    return { record: { ...record, stored }, tiers: result.tiers, verified: false, undelivered: undefined }
  }
  try {
    // Stores are asked, and no manifest: one stands for what came before it only as far as its writer knew of that.
    const results = createResults(taskSource({ taskId, manifests: undefined, stores: async () => stores }))
    const listed = await results.list({ metadata: false, signal })
    for (const { error } of listed.unavailable) note(error)
    const limit = pLimit(CONCURRENT_LOADS)
    const load = async (result: Result): Promise<Delivery | undefined> => {
      try {
        const record = await recordOf(result, { signal })
        return record === undefined || !isOf(record, gone) ? undefined : toDelivery(result, record)
      } catch (error) {
        note(error)
        return undefined
      }
    }
    const left = listed.filter(({ key }) => !gone.others.has(key))
    for (const delivery of await Promise.all(left.map((result) => limit(() => load(result))))) {
      if (delivery !== undefined) found.push(delivery)
    }
  } catch (error) {
    note(error)
  }
  return { found, problem }
}

/** A certificate says whose it is. Of what a worker stored, the time decides: sandboxes of a task come one after the other. */
function isOf(
  { name, metadata, created_at }: ResultRecord,
  { spawnId, attempt, beganAt, overAt }: GoneSandbox,
): boolean {
  if (name === DEATH_CERTIFICATE_NAME && typeof metadata.spawn_id === 'string') {
    return metadata.spawn_id === spawnId
  }
  const atMs = Date.parse(created_at)
  // Before the first there was none, however wrong its clock.
  if (attempt > 1 && atMs < Date.parse(beganAt)) return false
  return overAt === undefined || atMs < overAt.getTime()
}
