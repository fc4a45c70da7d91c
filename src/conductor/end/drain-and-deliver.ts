import { ConductorError, isConductorError } from '../../errors.js'
import type { DrainReport } from '../../protocol/drain.js'
import type { ResultRecord } from '../../protocol/record.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { cutOff } from '../../sandbox/within-limit.js'
import type { SpoolStore } from '../../stores/spool-store.js'
import { LEASE_MS } from '../lease.js'
import { type Delivery, deliverAll } from './deliver.js'
import { onlyOf } from './drain.js'
import type { Fence } from './fence.js'
import { takeStock } from './take-stock.js'
import { keepUndeclared } from './undeclared.js'
import type { EndedWorker } from './write-end.js'

/** How often a sandbox is woken that was paused while it was being drained. */
const MAX_WAKES = 3
/** For what lies in a sandbox that goes in any case, all limits of a drain together and a little more, */
const FORCED_STOCK_MS = 240_000
/** and for taking its results to where they are safe. */
const FORCED_DELIVERY_MS = 300_000

/** A sandbox of which stock is taken. */
export interface DrainedWorker extends EndedWorker {
  /** Around the sandbox, from before anything is asked of it; undefined with `force` where none could be put up. */
  readonly fence: Fence | undefined
  readonly spool: SpoolStore
  /** Told of every result the sandbox holds. */
  readonly onRecord: (record: ResultRecord) => void
}

/** What a sandbox was found to hold, and what became of that. */
export interface Drained {
  readonly report: DrainReport
  readonly deliveries: readonly Delivery[]
  /** Whether it may have held more than it holds. */
  readonly isSpoiled: boolean
  /** Why undeclared outputs were not kept, if they were to be. */
  readonly undeclared?: string | undefined
  /** Why nobody could find out what it holds, where it goes all the same. */
  readonly unaccounted?: string | undefined
}

/** What is known of a sandbox that was not asked. */
export const NOTHING: Drained = {
  report: { v: 1, outputs: [], records: [] },
  deliveries: [],
  isSpoiled: false,
}

/** Takes stock of a sandbox and delivers all that it holds; one that sleeps is woken: its time ran out, and it holds it still. */
export async function drainWaking(sandbox: RemoteSandbox, options: DrainedWorker): Promise<Drained> {
  for (let wakes = 0; ; wakes++) {
    try {
      return await drain(sandbox, options)
    } catch (error) {
      const isAsleep = isConductorError(error) && error.code === 'SANDBOX_PAUSED'
      if (!isAsleep || wakes === MAX_WAKES) throw error
      await sandbox.resume(LEASE_MS, { signal: options.signal })
    }
  }
}

async function drain(sandbox: RemoteSandbox, options: DrainedWorker): Promise<Drained> {
  const { taskId, places, record, spool, fence, force, onRecord, signal } = options
  const { localDir } = places
  const { outputs, cwd } = record
  const seal = places.volume === undefined ? fence?.id : undefined
  const spec = { taskId, localDir, outputs, cwd, seal }
  const taken = fence?.stock
  const look = async (limited: AbortSignal | undefined): Promise<Omit<Drained, 'deliveries'>> => {
    if (taken !== undefined) return { report: onlyOf(spec, taken), isSpoiled: false }
    const undeclared = await keepUndeclared(sandbox, { record, localDir, force }, { signal: limited })
    return { undeclared, ...(await takeStock(sandbox, spec, { force, signal: limited })) }
  }
  const stock = force ? cutOff(FORCED_STOCK_MS, `take stock of ${taskId}`, look, signal) : look(signal)
  const { report, ...found } = await stock
  for (const known of report.records) onRecord(known)
  const to = { spool, s3: places.s3, http: places.http, spoolIsVolume: places.volume !== undefined }
  const enough = new AbortController()
  const late = new ConductorError('TIMEOUT', `it was not delivered within ${FORCED_DELIVERY_MS} ms`)
  const timer = force ? setTimeout(() => enough.abort(late), FORCED_DELIVERY_MS) : undefined
  try {
    const deliveries = await deliverAll(report.records, to, { enough: enough.signal, signal })
    return { report, deliveries, ...found }
  } finally {
    clearTimeout(timer)
  }
}
