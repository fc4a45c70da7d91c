import type { Readable } from 'node:stream'
import { isDeepStrictEqual } from 'node:util'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import { formatKey, nextTimestamp } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import { DigestCheck, verifiedChunks } from '../../results/verify.js'
import { joinSignals } from '../../signals.js'
import { describeRecord, type ResultStore } from '../../stores/result-store.js'
import { readChunks, toNodeStream } from '../../streams/web-stream.js'

/** How far a key moves on before a name counts as hopelessly taken. */
const MAX_KEY_MOVES = 100

/** A store that the conductor itself can put results into. */
export interface CarryStore extends ResultStore {
  readonly tier: 's3' | 'http'
  /** Never over another result: rejects with `EXISTS`. Resolves with where it lies. */
  put(record: ResultRecord, body: Readable, options?: CallOptions): Promise<string>
}

/** Where the bytes of a result are taken from. */
export interface Cargo {
  /** Called for each try. */
  readonly open: () => Promise<ReadableStream<Uint8Array>>
  /** Name of that place. */
  readonly from: string
}

/**
 * Carries a result into a store, checked on the way and there. Where another result has its key, its timestamp moves on until
 * one is free. Resolves with the record as it then is.
 */
export async function carryTo(
  store: CarryStore,
  record: ResultRecord,
  cargo: Cargo,
  options: CallOptions = {},
): Promise<ResultRecord> {
  let carried = record
  for (let moves = 0; moves < MAX_KEY_MOVES; moves++) {
    try {
      return await carryOnce(store, carried, cargo, options)
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'EXISTS') throw error
      // Somebody has the key: this very result from an attempt whose answer was lost, or another one.
      if (await holds(store, carried, options)) return carried
      const timestamp = nextTimestamp(carried.timestamp)
      const key = formatKey({ taskId: carried.task_id, timestamp, name: carried.name })
      carried = { ...carried, timestamp, key }
    }
  }
  throw new ConductorError('EXISTS', `no free key for ${record.key} within ${MAX_KEY_MOVES} seconds`)
}

/** Puts a result under its own key and no other; rejects with `EXISTS` when that is taken. */
export async function carryOnce(
  store: CarryStore,
  record: ResultRecord,
  { open, from }: Cargo,
  options: CallOptions = {},
): Promise<ResultRecord> {
  const check = new DigestCheck(describeRecord(record))
  const source = toNodeStream(verifiedChunks(readChunks(await open()), check, from))
  const broken = new AbortController()
  // The AWS SDK pipes a body and does not listen to it: a source that fails would end this process.
  source.on('error', (error) => broken.abort(error))
  const signal = joinSignals(broken.signal, options.signal)
  try {
    const location = await store.put(record, source, { ...options, signal })
    // An endpoint of others need not be able to tell what it has.
    if (store.tier === 's3' && !(await holds(store, record, options))) {
      throw new ConductorError('INTEGRITY', `${record.key} is not in ${store.name} as it was sent`, {
        retryable: true,
      })
    }
    const at = new Date().toISOString()
    const others = record.stored.filter(({ tier }) => tier !== store.tier)
    return { ...record, stored: [...others, { tier: store.tier, location, at }] }
  } finally {
    source.destroy()
  }
}

/** Whether a store has this very result under its key; rejects with `NOT_ENCRYPTED` when it has, but not encrypted as it should be. */
export async function holds(
  store: ResultStore,
  record: ResultRecord,
  options: CallOptions = {},
): Promise<boolean> {
  const found = await store.describe(record.key, options)
  const isThere =
    found !== undefined &&
    found.size === record.size &&
    found.sha256 === record.sha256 &&
    isDeepStrictEqual(found.metadata, record.metadata)
  if (isThere && found.notEncrypted !== undefined) {
    throw new ConductorError('NOT_ENCRYPTED', `${record.key} in ${store.name} is ${found.notEncrypted}`)
  }
  return isThere
}
