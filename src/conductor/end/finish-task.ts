import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { withinLimit } from '../../sandbox/within-limit.js'
import { joinSignals } from '../../signals.js'
import { LEASE_MS } from '../lease.js'
import { type Delivery, toDeliveredResult } from './deliver.js'
import { type Drained, type DrainedWorker, drainWaking, NOTHING } from './drain-and-deliver.js'
import { findGivenUp, type KnownResult, tellGivenUp } from './given-up.js'
import type { LateSeal } from './late-seals.js'
import type { GivenUp, LackingOutputs, Receipt, WorkerExit } from './receipt.js'
import { UNDECLARED_NAME } from './undeclared.js'
import {
  closeIntent,
  type End,
  endOf,
  findLeft,
  readManifest,
  sealEnd,
  sealedWith,
  sealLate,
} from './write-end.js'
import { writtenReceipt } from './written-receipt.js'

/** A worker whose command has ended, and what is to become of it. */
export interface FinishOptions extends DrainedWorker {
  /** Undefined when it was lost before. */
  readonly sandbox: RemoteSandbox | undefined
  readonly exit: WorkerExit
  /** Called when the sandbox turns out to be gone: what that means for the worker's end. */
  readonly lost: () => WorkerExit
  /** Results that the sandbox was seen to hold. */
  readonly known: () => Iterable<KnownResult>
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

/** In which the end of a worker whose sandbox goes in any case is written down, or left to later. */
const SEAL_LIMIT_MS = 60_000

/**
 * Drains the sandbox, delivers and seals the task, in this order; only then its sandbox may be killed. Rejects with `UNDELIVERED`, nothing
 * destroyed, when a result would be lost and `force` is not set.
 */
export async function finishTask(options: FinishOptions): Promise<FinishedTask> {
  const { taskId, sandbox, force } = options
  let exit = options.exit
  let drained = NOTHING
  let gone = sandbox === undefined
  if (sandbox !== undefined) {
    try {
      drained = await drainWaking(sandbox, options)
      const left = drained.deliveries.filter(isUndelivered)
      if (left.length > 0 && !force) {
        // A sandbox that went meanwhile was not left alive.
        await sandbox.extend(LEASE_MS, options)
        throw refusal(taskId, left)
      }
    } catch (error) {
      options.signal?.throwIfAborted()
      if (!isConductorError(error)) throw error
      if (error.code === 'SANDBOX_GONE') {
        gone = true
        exit = options.lost()
      } else if (!force) {
        throw error
      } else {
        drained = { ...NOTHING, unaccounted: error.message }
      }
    }
  }
  if (!force) return writeDown(options, exit, drained, gone)
  // What S3 does not take in this time is left to later; so nothing is cut off here that heeds its signal.
  return withinLimit(SEAL_LIMIT_MS, `to write down the end of ${taskId}`, (limit) => {
    const signal = joinSignals(limit, options.signal)
    return writeDown({ ...options, signal }, exit, drained, gone)
  })
}

async function writeDown(
  options: FinishOptions,
  exit: WorkerExit,
  drained: Drained,
  gone: boolean,
): Promise<FinishedTask> {
  const { taskId, sandbox, places, force, signal } = options
  const kept = drained.deliveries.filter((delivery) => !isUndelivered(delivery))
  const told = drained.deliveries.map(({ record }) => record)
  const isUnseen = gone || drained.unaccounted !== undefined
  // It may have gone on storing while stock was taken.
  const isEndless = force && exit.exitCode === null && exit.signal === null && exit.outcome !== 'idle'
  let where = 'its sandbox holds it no more'
  if (isUnseen) where = gone ? 'its sandbox is gone' : 'its sandbox could not be read any more'
  let isAll = true
  let doubt = ''
  const givenUp = (accounted: readonly KnownResult[]): readonly GivenUp[] => [
    ...drained.deliveries.flatMap(({ record: { key, sha256 }, undelivered: reason }) =>
      reason === undefined || accounted.some((one) => one.key === key && one.sha256 === sha256)
        ? []
        : [{ key, reason: reason + doubt }],
    ),
    // Of one that nobody tampered with, what is not there any more was deleted.
    ...(isUnseen || drained.isSpoiled
      ? findGivenUp(options.known(), [...accounted, ...told], where + doubt)
      : []),
  ]
  if (isUnseen || drained.isSpoiled || isEndless) {
    const manifest = await readManifest(options)
    const receipt = gone ? writtenReceipt(options, manifest, kept, givenUp) : undefined
    if (receipt !== undefined) return { receipt, close: async () => {}, lateSeal: undefined, isOpen: false }
    const { found, problem } = await findLeft(options, manifest, kept)
    kept.push(...found)
    isAll = problem === undefined || !isUnseen
    if (problem !== undefined) doubt = ', and not every place could be asked'
  }
  const given = givenUp(kept.map(({ record }) => record))
  const certificate = await options.certify(exit, { evidence: tellGivenUp(given), signal })
  const isNew = kept.every(({ record }) => record.key !== certificate?.record.key)
  if (certificate !== undefined && isNew) kept.push(certificate)
  const end: End = {
    exit,
    kept,
    givenUp: given,
    outputs: lackingOutputs(drained),
    drained: !gone && drained.unaccounted === undefined,
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
  const ended = (gone ? endOf(options, manifest) : undefined) ?? exit
  const written = { certificateKey: certificate?.record.key, ...sealedWith(options, manifest) }
  const receipt = receiptOf(taskId, ended, drained, kept, given, written)
  return { receipt, close, lateSeal: isLeft ? lateSeal : undefined, isOpen: isLeft && gone }
}

function receiptOf(
  taskId: string,
  exit: WorkerExit,
  drained: Drained,
  kept: readonly Delivery[],
  undelivered: readonly GivenUp[],
  written: Pick<Receipt, 'sealed' | 'certificateKey'>,
): Receipt {
  return {
    taskId,
    ...exit,
    ...written,
    results: kept.map(toDeliveredResult),
    ...lackingOutputs(drained),
    undelivered,
    ...(drained.unaccounted === undefined ? {} : { unaccounted: drained.unaccounted }),
  }
}

function lackingOutputs({ report: { outputs }, undeclared }: Drained): LackingOutputs {
  return {
    missingOutputs: outputs.filter(({ status }) => status === 'missing').map(({ path }) => path),
    failedOutputs: [
      ...outputs
        .filter(({ status }) => status === 'failed')
        .map(({ path, error }) => ({ path, reason: error ?? 'unknown' })),
      ...(undeclared === undefined ? [] : [{ path: UNDECLARED_NAME, reason: undeclared }]),
    ],
  }
}

function isUndelivered({ undelivered }: Delivery): boolean {
  return undelivered !== undefined
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
