import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import type { Manifest } from '../../protocol/manifest.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import type { TaskPlaces } from '../places.js'
import type { Delivery } from './deliver.js'
import { findDelivered } from './found-results.js'
import type { Receipt, WorkerExit } from './receipt.js'
import { certificateOf, findAttempt, type SealOptions, sealTask } from './seal.js'

/** Whose end it is, and where it is written down. */
export interface EndedWorker extends CallOptions {
  readonly taskId: string
  readonly sandboxId: string
  readonly record: WorkerRecord
  readonly places: TaskPlaces
  /** Whether S3 being away must not hold up the end, whatever becomes of the results. */
  readonly force: boolean
  /** Tag of the task's intent; undefined where it has to be read first. */
  readonly intentEtag: Promise<string | undefined> | undefined
  /** Stores what is known of its death, once; undefined when it ended by itself, or nothing takes it. */
  readonly certify: (exit: WorkerExit, options: CallOptions) => Promise<Delivery | undefined>
}

/** What is to be written of a worker's end. */
export interface End {
  readonly exit: WorkerExit
  readonly kept: readonly Delivery[]
  /** False when the sandbox was gone before anybody asked what it holds. */
  readonly drained: boolean
  readonly isCertified: boolean
}

/** Writes the manifest; undefined when there is no place for one, or S3 is away and must not hold up the end of what lies elsewhere. */
export async function sealEnd(options: EndedWorker, end: End): Promise<Manifest | undefined> {
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
  { taskId, sandboxId, record }: EndedWorker,
  { exit, kept, drained }: End,
  signal: AbortSignal | undefined,
): SealOptions {
  const { attempt, spawn_id: spawnId } = record
  const records = kept.map((delivery) => delivery.record)
  return { taskId, sandboxId, spawnId, attempt, exit, records, drained, signal }
}

/** What could not be done when the worker was finished: its certificate, what it is known to have left, the seal. */
export async function sealLate(options: EndedWorker, end: End, { signal }: CallOptions): Promise<void> {
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

/** Says that the end of what was begun is written down. */
export async function closeIntent(
  { places, record, intentEtag }: EndedWorker,
  { signal }: CallOptions,
): Promise<void> {
  try {
    await places.intents?.close(record, { etag: await intentEtag, signal })
  } catch (error) {
    // Whoever goes through open intents finds the task sealed.
    if (!isConductorError(error)) throw error
  }
}

export async function readManifest({ taskId, places, signal }: EndedWorker): Promise<Manifest | undefined> {
  try {
    return await places.manifests?.read(taskId, { signal })
  } catch (error) {
    // Whether it can be written is another question, which sealing asks.
    if (!isConductorError(error)) throw error
    return undefined
  }
}

/** How a sandbox that is gone ended by the word of another conductor, which drained it before it went. */
export function endOf(
  { sandboxId, record }: EndedWorker,
  manifest: Manifest | undefined,
): WorkerExit | undefined {
  const found = findAttempt(manifest, { sandboxId, spawnId: record.spawn_id })
  if (found === undefined) return undefined
  const { outcome, exit, cause } = found
  return { outcome, exitCode: exit?.code ?? null, signal: exit?.signal ?? null, cause: cause ?? undefined }
}

export function sealedWith(
  { sandboxId, record }: EndedWorker,
  manifest: Manifest | undefined,
): Pick<Receipt, 'sealed' | 'certificateKey'> {
  if (manifest === undefined) return { sealed: false }
  const certificateKey = certificateOf(findAttempt(manifest, { sandboxId, spawnId: record.spawn_id }))
  return { sealed: true, ...(certificateKey === undefined ? {} : { certificateKey }) }
}
