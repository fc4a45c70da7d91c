import { isDeepStrictEqual } from 'node:util'
import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { formatKey, nextTimestamp } from '../protocol/key.js'
import type { ResultRecord } from '../protocol/record.js'
import { DigestCheck, verifiedChunks } from '../results/verify.js'
import { describeRecord, type ResultStore, type StoreTier } from '../stores/result-store.js'
import type { S3Store } from '../stores/s3/s3-store.js'
import type { SpoolStore } from '../stores/spool-store.js'
import { readChunks, toNodeStream } from '../streams/web-stream.js'

const CONCURRENT_DELIVERIES = 8
/** How far a key moves on before a name counts as hopelessly taken. */
const MAX_KEY_MOVES = 100

/** Where results can be taken and where they can be put. */
export interface DeliveryPlaces {
  /** The sandbox's own spool. */
  readonly spool: SpoolStore
  readonly s3: S3Store | undefined
  readonly http: ResultStore | undefined
  /** Whether the spool itself outlives the sandbox. */
  readonly spoolIsVolume: boolean
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

/**
 * Makes sure that each result lies somewhere beyond its sandbox. What a worker says it stored is checked with the store; what
 * is not there is carried by the conductor.
 */
export async function deliverAll(
  records: readonly ResultRecord[],
  places: DeliveryPlaces,
  options: CallOptions = {},
): Promise<readonly Delivery[]> {
  const limit = pLimit(CONCURRENT_DELIVERIES)
  return Promise.all(records.map((record) => limit(() => deliver(record, places, options))))
}

async function deliver(
  record: ResultRecord,
  places: DeliveryPlaces,
  options: CallOptions,
): Promise<Delivery> {
  const { s3, spoolIsVolume } = places
  let reason = 'no tier that outlives the sandbox is configured'
  if (s3 !== undefined) {
    try {
      const kept = await keepInS3(record, s3, places.spool, options)
      return { record: kept, tiers: ['s3'], verified: true, undelivered: undefined }
    } catch (error) {
      if (!isConductorError(error)) throw error
      reason = error.message
    }
  }
  const tiers: StoreTier[] = []
  let verified = false
  if (places.http !== undefined && record.stored.some(({ tier }) => tier === 'http')) {
    const kept = await keptByHttp(record, places.http, options)
    verified = kept.verified
    if (kept.problem === undefined) tiers.push('http')
    else reason = kept.problem
  }
  if (spoolIsVolume) tiers.push('volume')
  return { record, tiers, verified, undelivered: tiers.length > 0 ? undefined : reason }
}

/** Whether the endpoint has what it took. A server that only takes the POST said 2xx, which is all that it can say. */
async function keptByHttp(
  record: ResultRecord,
  http: ResultStore,
  options: CallOptions,
): Promise<{ readonly verified: boolean; readonly problem: string | undefined }> {
  try {
    if (await holds(http, record, options)) return { verified: true, problem: undefined }
  } catch (error) {
    if (!isConductorError(error)) throw error
    if (error.retryable) return { verified: false, problem: error.message }
  }
  // Not there, or an answer that says nothing: one that can list can be believed.
  try {
    for await (const _ of http.list(record.task_id, options)) break
    return { verified: false, problem: `${http.name} does not have it as it was sent` }
  } catch (error) {
    if (!isConductorError(error)) throw error
    return { verified: false, problem: error.code === 'UNSUPPORTED' ? undefined : error.message }
  }
}

async function keepInS3(
  record: ResultRecord,
  s3: S3Store,
  spool: SpoolStore,
  options: CallOptions,
): Promise<ResultRecord> {
  if (record.stored.some(({ tier }) => tier === 's3') && (await holds(s3, record, options))) return record
  let carried = record
  for (let moves = 0; moves < MAX_KEY_MOVES; moves++) {
    try {
      return await carry(carried, record.key, s3, spool, options)
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'EXISTS') throw error
      // Somebody has the key: this very result from an attempt whose answer was lost, or another one.
      if (await holds(s3, carried, options)) return carried
      const timestamp = nextTimestamp(carried.timestamp)
      const key = formatKey({ taskId: carried.task_id, timestamp, name: carried.name })
      carried = { ...carried, timestamp, key }
    }
  }
  throw new ConductorError('EXISTS', `no free key for ${record.key} within ${MAX_KEY_MOVES} seconds`)
}

async function carry(
  record: ResultRecord,
  spoolKey: string,
  s3: S3Store,
  spool: SpoolStore,
  options: CallOptions,
): Promise<ResultRecord> {
  const check = new DigestCheck(describeRecord(record))
  const body = readChunks(await spool.open(spoolKey, options))
  const source = toNodeStream(verifiedChunks(body, check, spool.name))
  try {
    const location = await s3.put(record, source, options)
    if (!(await holds(s3, record, options))) {
      throw new ConductorError('INTEGRITY', `${record.key} is not in ${s3.name} as it was sent`, {
        retryable: true,
      })
    }
    const at = new Date().toISOString()
    const others = record.stored.filter(({ tier }) => tier !== 's3')
    return { ...record, stored: [...others, { tier: 's3', location, at }] }
  } finally {
    source.destroy()
  }
}

async function holds(store: ResultStore, record: ResultRecord, options: CallOptions): Promise<boolean> {
  const found = await store.describe(record.key, options)
  return (
    found !== undefined &&
    found.size === record.size &&
    found.sha256 === record.sha256 &&
    isDeepStrictEqual(found.metadata, record.metadata)
  )
}
