import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { DrainReport } from '../../protocol/drain.js'
import type { ResultRecord } from '../../protocol/record.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import type { SpoolStore } from '../../stores/spool-store.js'
import { LEASE_MS } from '../lease.js'
import { type Delivery, deliverAll } from './deliver.js'
import type { Fence } from './fence.js'
import type { LateSeal } from './late-seals.js'
import type { DeliveredResult, Receipt, WorkerExit } from './receipt.js'
import { takeStock } from './take-stock.js'
import { keepUndeclared, UNDECLARED_NAME } from './undeclared.js'
import {
  closeIntent,
  type End,
  type EndedWorker,
  endOf,
  findLeft,
  readManifest,
  sealEnd,
  sealedWith,
  sealLate,
} from './write-end.js'

/** A worker whose command has ended, and what is to become of it. */
export interface FinishOptions extends EndedWorker {
  /** Undefined when it was lost before. */
  readonly sandbox: RemoteSandbox | undefined
  /** Around the sandbox, from before anything is asked of it; undefined with `force` where none could be put up. */
  readonly fence: Fence | undefined
  readonly spool: SpoolStore
  readonly exit: WorkerExit
  /** Called when the sandbox turns out to be gone: what that means for the worker's end. */
  readonly lost: () => WorkerExit
  /** Told of every result the sandbox holds. */
  readonly onRecord: (record: ResultRecord) => void
}

/** What came of finishing a worker. */
export interface FinishedTask {
  readonly receipt: Receipt
  /** Kills the sandbox, and says that the end of what was begun is written down; to be tried again until it goes well. */
  readonly close: (options: CallOptions) => Promise<void>
  /** Where S3 could not take the end of it: does the rest. */
  readonly lateSeal: LateSeal | undefined
  /** Whether another go may find out more: nothing was asked of the sandbox, and S3 could not be. */
  readonly isOpen: boolean
}

interface Drained {
  readonly report: DrainReport
  readonly deliveries: readonly Delivery[]
  /** Why undeclared outputs were not kept, if they were to be. */
  readonly undeclared?: string | undefined
}

const NOTHING: Drained = { report: { v: 1, outputs: [], records: [] }, deliveries: [] }

/**
 * Drains the sandbox, delivers and seals the task, in this order; only then its sandbox may be killed. Rejects with `UNDELIVERED`, nothing
 * destroyed, when a result would be lost and `force` is not set.
 */
export async function finishTask(options: FinishOptions): Promise<FinishedTask> {
  const { taskId, sandbox, places, force, signal } = options
  let exit = options.exit
  let drained = NOTHING
  let gone = sandbox === undefined
  let isAll = true
  if (sandbox !== undefined) {
    try {
      drained = await drain(sandbox, options).catch(async (error: unknown) => {
        if (!isConductorError(error) || error.code !== 'SANDBOX_PAUSED') throw error
        // Its time ran out before anybody asked for what it holds, and it holds it still.
        await sandbox.resume(LEASE_MS, { signal })
        return await drain(sandbox, options)
      })
    } catch (error) {
      if (!isConductorError(error)) throw error
      if (error.code === 'SANDBOX_GONE') {
        gone = true
        exit = options.lost()
      } else if (!force) {
        throw error
      }
    }
  }
  const undelivered = drained.deliveries.filter((delivery) => delivery.undelivered !== undefined)
  if (undelivered.length > 0 && !force) throw refusal(taskId, undelivered)
  const kept = drained.deliveries.filter((delivery) => delivery.undelivered === undefined)
  if (gone) {
    const manifest = await readManifest(options)
    const before = endOf(options, manifest)
    if (before !== undefined) {
      const receipt = receiptOf(taskId, before, drained, kept, sealedWith(options, manifest))
      return { receipt, close: async () => {}, lateSeal: undefined, isOpen: false }
    }
    const { found, problem } = await findLeft(options, manifest)
    kept.push(...found)
    isAll = problem === undefined
  }
  const certificate = await options.certify(exit, { signal })
  const isNew = kept.every(({ record }) => record.key !== certificate?.record.key)
  if (certificate !== undefined && isNew) kept.push(certificate)
  const end: End = {
    exit,
    kept,
    drained: !gone && drained !== NOTHING,
    isCertified: certificate !== undefined,
  }
  // A manifest that lacks a result would say that there was none; it is written once all tiers have answered.
  const manifest = isAll ? await sealEnd(options, end) : undefined
  const close = async (call: CallOptions): Promise<void> => {
    await Promise.all([
      manifest === undefined ? undefined : closeIntent(options, call),
      gone || sandbox === undefined ? undefined : kill(options.fence ?? sandbox, call),
    ])
  }
  const isLeft = manifest === undefined && places.manifests !== undefined
  const lateSeal: LateSeal = { taskId, write: (call) => sealLate(options, end, call) }
  // Another conductor may have come first, and have seen more.
  const told = (gone ? endOf(options, manifest) : undefined) ?? exit
  const written = { certificateKey: certificate?.record.key, ...sealedWith(options, manifest) }
  const receipt = receiptOf(taskId, told, drained, kept, written)
  return { receipt, close, lateSeal: isLeft ? lateSeal : undefined, isOpen: isLeft && gone }

  async function drain(from: RemoteSandbox, { record, spool, onRecord }: FinishOptions): Promise<Drained> {
    const undeclared = await keepUndeclared(from, { record, localDir: places.localDir, force }, { signal })
    const report = await takeStock(
      from,
      {
        taskId,
        localDir: places.localDir,
        outputs: record.outputs,
        cwd: record.cwd,
        seal: places.volume === undefined ? options.fence?.id : undefined,
      },
      { force, signal },
    )
    for (const record of report.records) onRecord(record)
    const deliveries = await deliverAll(
      report.records,
      { spool, s3: places.s3, http: places.http, spoolIsVolume: places.volume !== undefined },
      { signal },
    )
    return { report, deliveries, undeclared }
  }
}

function receiptOf(
  taskId: string,
  exit: WorkerExit,
  { report: { outputs }, deliveries, undeclared }: Drained,
  kept: readonly Delivery[],
  written: Pick<Receipt, 'sealed' | 'certificateKey'>,
): Receipt {
  return {
    taskId,
    ...exit,
    ...written,
    results: kept.map(toDeliveredResult),
    missingOutputs: outputs.filter(({ status }) => status === 'missing').map(({ path }) => path),
    failedOutputs: [
      ...outputs
        .filter(({ status }) => status === 'failed')
        .map(({ path, error }) => ({ path, reason: error ?? 'unknown' })),
      ...(undeclared === undefined ? [] : [{ path: UNDECLARED_NAME, reason: undeclared }]),
    ],
    undelivered: deliveries.flatMap(({ record, undelivered: reason }) =>
      reason === undefined ? [] : [{ key: record.key, reason }],
    ),
  }
}

/** As a receipt tells it. */
export function toDeliveredResult({ record, tiers, verified }: Delivery): DeliveredResult {
  return { key: record.key, sizeBytes: record.size, sha256: record.sha256, tiers, verified }
}

function refusal(taskId: string, undelivered: readonly Delivery[]): ConductorError {
  const shown = undelivered
    .slice(0, 5)
    .map(({ record, undelivered: reason }) => `${record.key} (${reason ?? ''})`)
  const more = undelivered.length > shown.length ? ` and ${undelivered.length - shown.length} more` : ''
  return new ConductorError(
    'UNDELIVERED',
    `terminating ${taskId} would destroy ${undelivered.length} result(s) that lie nowhere else: ${shown.join('; ')}${more}; the sandbox was left alive, use force: true to give them up`,
    { retryable: true },
  )
}

/** One that is not there is what was wanted. */
async function kill(sandbox: Pick<RemoteSandbox, 'kill'>, options: CallOptions): Promise<void> {
  try {
    await sandbox.kill(options)
  } catch (error) {
    if (!isConductorError(error) || error.code !== 'SANDBOX_GONE') throw error
  }
}
