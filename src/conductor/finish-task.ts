import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import type { DrainReport } from '../protocol/drain.js'
import type { Manifest } from '../protocol/manifest.js'
import type { ResultRecord } from '../protocol/record.js'
import type { WorkerRecord } from '../protocol/worker-record.js'
import type { RemoteSandbox } from '../sandbox/remote-sandbox.js'
import type { SpoolStore } from '../stores/spool-store.js'
import { type Delivery, deliverAll } from './deliver.js'
import { drainSandbox } from './drain.js'
import { findDelivered } from './found-results.js'
import type { LateSeal } from './late-seals.js'
import { LEASE_MS } from './lease.js'
import type { TaskPlaces } from './places.js'
import type { DeliveredResult, Receipt, WorkerExit } from './receipt.js'
import { certificateOf, findAttempt, type SealOptions, sealTask } from './seal.js'
import { keepUndeclared, UNDECLARED_NAME } from './undeclared.js'

/** A worker whose command has ended, and what is to become of it. */
export interface FinishOptions extends CallOptions {
  readonly taskId: string
  /** Undefined when it was lost before. */
  readonly sandbox: RemoteSandbox | undefined
  readonly spool: SpoolStore
  readonly places: TaskPlaces
  readonly exit: WorkerExit
  readonly record: WorkerRecord
  readonly sandboxId: string
  readonly force: boolean
  /** Tag of the task's intent; undefined where it has to be read first. */
  readonly intentEtag: Promise<string | undefined> | undefined
  /** Called when the sandbox turns out to be gone: what that means for the worker's end. */
  readonly lost: () => WorkerExit
  /** Stores what is known of its death, once; undefined when it ended by itself, or nothing takes it. */
  readonly certify: (exit: WorkerExit, options: CallOptions) => Promise<Delivery | undefined>
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
    const known = new Set(manifest?.results.map(({ key }) => key))
    kept.push(...(await findDelivered(taskId, places, known, { signal })))
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
  const manifest = await seal(options, end)
  const close = async (call: CallOptions): Promise<void> => {
    await Promise.all([
      manifest === undefined ? undefined : closeIntent(options, call),
      gone || sandbox === undefined ? undefined : kill(sandbox, call),
    ])
  }
  const isLeft = manifest === undefined && places.manifests !== undefined
  const lateSeal: LateSeal = (call) => sealLate(options, end, call)
  // Another conductor may have come first, and have seen more.
  const told = (gone ? endOf(options, manifest) : undefined) ?? exit
  const written = { certificateKey: certificate?.record.key, ...sealedWith(options, manifest) }
  const receipt = receiptOf(taskId, told, drained, kept, written)
  return { receipt, close, lateSeal: isLeft ? lateSeal : undefined, isOpen: isLeft && gone }

  async function drain(from: RemoteSandbox, { record, spool, onRecord }: FinishOptions): Promise<Drained> {
    const undeclared = await keepUndeclared(from, { record, localDir: places.localDir }, { signal })
    const report = await drainSandbox(
      from,
      {
        taskId,
        localDir: places.localDir,
        outputs: record.outputs,
        cwd: record.cwd,
        seal: places.volume === undefined,
      },
      { signal },
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

/** What is to be written of a worker's end. */
interface End {
  readonly exit: WorkerExit
  readonly kept: readonly Delivery[]
  /** False when the sandbox was gone before anybody asked what it holds. */
  readonly drained: boolean
  readonly isCertified: boolean
}

/** Writes the manifest; undefined when there is no place for one, or S3 is away and must not hold up the end of what lies elsewhere. */
async function seal(options: FinishOptions, end: End): Promise<Manifest | undefined> {
  const { places, force, signal } = options
  if (places.manifests === undefined) return undefined
  try {
    return await sealTask(places.manifests, attemptOf(options, end, signal))
  } catch (error) {
    const liesElsewhere = places.http !== undefined || places.volume !== undefined
    if (!isConductorError(error) || !(force || (liesElsewhere && error.retryable))) throw error
    return undefined
  }
}

function attemptOf(
  { taskId, sandboxId, record }: FinishOptions,
  { exit, kept, drained }: End,
  signal: AbortSignal | undefined,
): SealOptions {
  const { attempt, spawn_id: spawnId } = record
  const records = kept.map((delivery) => delivery.record)
  return { taskId, sandboxId, spawnId, attempt, exit, records, drained, signal }
}

/** What could not be done when the worker was finished: its certificate, what it is known to have left, the seal. */
async function sealLate(options: FinishOptions, end: End, { signal }: CallOptions): Promise<void> {
  const { taskId, places } = options
  if (places.manifests === undefined) return
  const manifest = await places.manifests.read(taskId, { signal })
  const kept = [...end.kept]
  if (!end.drained) {
    const known = new Set(
      [...(manifest?.results ?? []), ...kept.map(({ record }) => record)].map(({ key }) => key),
    )
    kept.push(...(await findDelivered(taskId, places, known, { signal })))
  }
  const certificate = end.isCertified ? undefined : await options.certify(end.exit, { signal })
  if (certificate !== undefined) kept.push(certificate)
  await sealTask(places.manifests, attemptOf(options, { ...end, kept }, signal))
  await closeIntent(options, { signal })
}

/** One that is not there is what was wanted. */
async function kill(sandbox: RemoteSandbox, options: CallOptions): Promise<void> {
  try {
    await sandbox.kill(options)
  } catch (error) {
    if (!isConductorError(error) || error.code !== 'SANDBOX_GONE') throw error
  }
}

/** Says that the end of what was begun is written down. */
async function closeIntent(
  { places, record, intentEtag }: FinishOptions,
  { signal }: CallOptions,
): Promise<void> {
  try {
    await places.intents?.close(record, { etag: await intentEtag, signal })
  } catch (error) {
    // Whoever goes through open intents finds the task sealed.
    if (!isConductorError(error)) throw error
  }
}

async function readManifest({ taskId, places, signal }: FinishOptions): Promise<Manifest | undefined> {
  try {
    return await places.manifests?.read(taskId, { signal })
  } catch (error) {
    // Whether it can be written is another question, which sealing asks.
    if (!isConductorError(error)) throw error
    return undefined
  }
}

/** How a sandbox that is gone ended by the word of another conductor, which drained it before it went. */
function endOf({ sandboxId, record }: FinishOptions, manifest: Manifest | undefined): WorkerExit | undefined {
  const found = findAttempt(manifest, { sandboxId, spawnId: record.spawn_id })
  if (found === undefined) return undefined
  const { outcome, exit, cause } = found
  return { outcome, exitCode: exit?.code ?? null, signal: exit?.signal ?? null, cause: cause ?? undefined }
}

function sealedWith(
  { sandboxId, record }: FinishOptions,
  manifest: Manifest | undefined,
): Pick<Receipt, 'sealed' | 'certificateKey'> {
  if (manifest === undefined) return { sealed: false }
  const certificateKey = certificateOf(findAttempt(manifest, { sandboxId, spawnId: record.spawn_id }))
  return { sealed: true, ...(certificateKey === undefined ? {} : { certificateKey }) }
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
