import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import type { ResultRecord } from '../../protocol/record.js'
import { joinSignals } from '../../signals.js'
import type { ResultStore, StoreTier } from '../../stores/result-store.js'
import type { SpoolStore } from '../../stores/spool-store.js'
import { untilAborted } from '../../until-aborted.js'
import { type CarryStore, carryTo, holds } from './carry.js'
import type { DeliveredResult } from './receipt.js'

const CONCURRENT_DELIVERIES = 8

/** Where results can be taken and where they can be put. */
export interface DeliveryPlaces {
  /** The sandbox's own spool. */
  readonly spool: SpoolStore
  readonly s3: CarryStore | undefined
  readonly http: CarryStore | undefined
  /** Whether the spool itself outlives the sandbox. */
  readonly spoolIsVolume: boolean
}

/** How results are delivered. */
export interface DeliverOptions extends CallOptions {
  /** What is not delivered once this aborts stays where it is; its reason, a `ConductorError`, says why. */
  readonly enough?: AbortSignal | undefined
}

/** What became of one result. */
export interface Delivery {
  /** As it is known from now on: its key may have moved on, and `stored` says where it lies. */
  readonly record: ResultRecord
  readonly tiers: readonly StoreTier[]
  readonly verified: boolean
  /** Undefined when it is kept somewhere beyond the sandbox. */
  readonly undelivered: string | undefined
}

/** As a receipt tells it. */
export function toDeliveredResult({ record, tiers, verified }: Delivery): DeliveredResult {
  return { key: record.key, sizeBytes: record.size, sha256: record.sha256, tiers, verified }
}

/**
 * Makes sure that each result lies somewhere beyond its sandbox, in the best tier that can be reached. What a worker says it
 * stored is checked with the store; what is not there is carried by the conductor.
 */
export async function deliverAll(
  records: readonly ResultRecord[],
  places: DeliveryPlaces,
  { enough, signal }: DeliverOptions = {},
): Promise<readonly Delivery[]> {
  const limit = pLimit(CONCURRENT_DELIVERIES)
  const either = joinSignals(signal, enough)
  return Promise.all(
    records.map((record) =>
      limit(async () => {
        try {
          return await untilAborted(deliver(record, places, { signal: either }), either)
        } catch (error) {
          signal?.throwIfAborted()
          if (!enough?.aborted || !isConductorError(enough.reason)) throw error
          return { record, tiers: [], verified: false, undelivered: enough.reason.message }
        }
      }),
    ),
  )
}

async function deliver(
  record: ResultRecord,
  places: DeliveryPlaces,
  options: CallOptions,
): Promise<Delivery> {
  const { s3, http, spool, spoolIsVolume } = places
  const reasons: string[] = []
  const open = (): Promise<ReadableStream<Uint8Array>> => spool.open(record.key, options)
  if (s3 !== undefined) {
    try {
      const isThere = record.stored.some(({ tier }) => tier === 's3') && (await holds(s3, record, options))
      const kept = isThere ? record : await carryTo(s3, record, { open, from: spool.name }, options)
      return { record: kept, tiers: ['s3'], verified: true, undelivered: undefined }
    } catch (error) {
      if (!isConductorError(error)) throw error
      // Another tier would hide that it lies open in this one.
      if (error.code === 'NOT_ENCRYPTED') {
        return { record, tiers: [], verified: false, undelivered: error.message }
      }
      reasons.push(error.message)
    }
  }
  const volume: StoreTier[] = []
  try {
    if (spoolIsVolume && (await isInSpool(record, spool, options))) volume.push('volume')
  } catch (error) {
    if (!isConductorError(error)) throw error
    reasons.push(error.message)
  }
  if (http !== undefined) {
    try {
      const isThere = record.stored.some(({ tier }) => tier === 'http')
      const found = isThere ? await keptByHttp(record, http, options) : 'absent'
      if (found !== 'absent') {
        return { record, tiers: ['http', ...volume], verified: found === 'verified', undelivered: undefined }
      }
      const kept = await carryTo(http, record, { open, from: spool.name }, options)
      const verified = (await keptByHttp(kept, http, options)) === 'verified'
      return { record: kept, tiers: ['http', ...volume], verified, undelivered: undefined }
    } catch (error) {
      if (!isConductorError(error)) throw error
      reasons.push(error.message)
    }
  }
  if (volume.length > 0) return { record, tiers: volume, verified: false, undelivered: undefined }
  const reason = reasons.join('; ') || 'no tier that outlives the sandbox is configured'
  return { record, tiers: [], verified: false, undelivered: reason }
}

/** Results that the spool had no room for are known by what remote tiers took of them; all others lie there. */
async function isInSpool(record: ResultRecord, spool: ResultStore, options: CallOptions): Promise<boolean> {
  return record.stored.length === 0 || holds(spool, record, options)
}

/** Whether the endpoint has what it took. A server that only takes the POST said 2xx, which is all that it can say. */
async function keptByHttp(
  record: ResultRecord,
  http: ResultStore,
  options: CallOptions,
): Promise<'verified' | 'believed' | 'absent'> {
  try {
    if (await holds(http, record, options)) return 'verified'
  } catch (error) {
    if (!isConductorError(error) || error.retryable) throw error
  }
  // Not there, or an answer that says nothing: one that can list can be believed.
  try {
    for await (const _ of http.list(record.task_id, options)) break
    return 'absent'
  } catch (error) {
    if (!isConductorError(error) || error.code !== 'UNSUPPORTED') throw error
    return 'believed'
  }
}
