import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import type { Manifest } from '../../protocol/manifest.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import type { OpenIntent } from '../open-intent.js'
import type { TaskPlaces } from '../places.js'
import type { Delivery } from './deliver.js'
import { type FoundResults, findDelivered } from './found-results.js'
import { tellGivenUp } from './given-up.js'
import type { GivenUp, LackingOutputs, Receipt, WorkerExit } from './receipt.js'
import { attributedKeys, certificateOf, findAttempt, type SealOptions, sealTask } from './seal.js'

/** What a certificate is to say besides. */
export interface CertifyOptions extends CallOptions {
  readonly evidence: readonly string[]
}

/** Whose end it is, and where it is written down. */
export interface EndedWorker extends CallOptions {
  readonly taskId: string
  readonly sandboxId: string
  readonly record: WorkerRecord
  readonly places: TaskPlaces
  /** Whether S3 being away must not hold up the end, whatever becomes of the results. */
  readonly force: boolean
  /** What is written down of its beginning; undefined where others did that. */
  readonly intent: OpenIntent | undefined
  /** When its sandbox was found to be gone, if it was. */
  readonly lostAt: () => Date | undefined
  /** Stores what is known of its death, once; undefined when it ended by itself, or nothing takes it. */
  readonly certify: (exit: WorkerExit, options: CertifyOptions) => Promise<Delivery | undefined>
}

/** What is to be written of a worker's end. */
export interface End {
  readonly exit: WorkerExit
  readonly kept: readonly Delivery[]
  /** Known results that were given up. */
  readonly givenUp: readonly GivenUp[]
  readonly outputs: LackingOutputs
  /** False when the sandbox was gone before anybody asked what it holds, or could not be asked. */
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
  { taskId, sandboxId, record, places }: EndedWorker,
  { exit, kept, givenUp: undelivered, outputs, drained }: End,
  signal: AbortSignal | undefined,
): SealOptions {
  const { attempt, spawn_id: spawnId } = record
  const records = kept.map((delivery) => delivery.record)
  // A spool on a volume holds what earlier sandboxes left as well.
  const beganAt = places.volume === undefined || attempt === 1 ? undefined : record.created_at
  const { volume } = places
  return {
    taskId,
    sandboxId,
    spawnId,
    attempt,
    volume,
    beganAt,
    exit,
    records,
    undelivered,
    outputs,
    drained,
    signal,
  }
}

/** What could not be done when the worker was finished: its certificate, what it is known to have left, the seal. */
export async function sealLate(options: EndedWorker, end: End, { signal }: CallOptions): Promise<void> {
  const { places } = options
  if (places.manifests === undefined) return
  const manifest = await places.manifests.read(options.taskId, { signal })
  const kept = [...end.kept]
  if (!end.drained || end.givenUp.length > 0) {
    // Whoever ended the worker waits for nothing any more, and may have said so by the signal of that call.
    const { found, problem } = await findLeft({ ...options, signal }, manifest, kept)
    if (problem !== undefined) throw problem
    kept.push(...found)
  }
  const keys = new Set(kept.map(({ record }) => record.key))
  const givenUp = end.givenUp.filter(({ key }) => !keys.has(key))
  const evidence = tellGivenUp(givenUp)
  const certificate = end.isCertified ? undefined : await options.certify(end.exit, { evidence, signal })
  if (certificate !== undefined) kept.push(certificate)
  await sealTask(places.manifests, attemptOf(options, { ...end, kept, givenUp }, signal))
  await closeIntent(options, { signal })
}

/** What a sandbox that is gone has left beyond itself, but for what is known. */
export async function findLeft(
  { taskId, record, places, lostAt, signal }: EndedWorker,
  manifest: Manifest | undefined,
  known: readonly Delivery[] = [],
): Promise<FoundResults> {
  const { spawn_id: spawnId, attempt, created_at: beganAt } = record
  const others = new Set([...attributedKeys(manifest), ...known.map((delivery) => delivery.record.key)])
  return findDelivered(taskId, places, { spawnId, attempt, beganAt, overAt: lostAt(), others }, { signal })
}

/** Says that the end of what was begun is written down. */
export async function closeIntent(
  { places, record, intent }: EndedWorker,
  { signal }: CallOptions,
): Promise<void> {
  try {
    await (intent === undefined ? places.intents?.close(record, { signal }) : intent.close({ signal }))
  } catch (error) {
    // Whoever goes through open intents finds the task sealed.
    if (!isConductorError(error)) throw error
  }
}

/** The task's manifest; undefined where there is none, and where it cannot be asked for. */
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

/** What a receipt says of an end that stands in the manifest already. */
export function sealedWith(
  { sandboxId, record }: EndedWorker,
  manifest: Manifest | undefined,
): Pick<Receipt, 'sealed' | 'certificateKey'> {
  if (manifest === undefined) return { sealed: false }
  const certificateKey = certificateOf(findAttempt(manifest, { sandboxId, spawnId: record.spawn_id }))
  return { sealed: true, ...(certificateKey === undefined ? {} : { certificateKey }) }
}
