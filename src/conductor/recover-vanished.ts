import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { type ConductorError, isConductorError } from '../errors.js'
import type { DeathCertificate } from '../protocol/death-certificate.js'
import type { Intent } from '../protocol/intent.js'
import type { Manifest } from '../protocol/manifest.js'
import type { ManifestStore } from '../stores/manifest-store.js'
import { START_WINDOW_MS } from './claim-task.js'
import { storeCertificate } from './death-certificate.js'
import type { Delivery } from './deliver.js'
import { toDeliveredResult } from './finish-task.js'
import { findDelivered } from './found-results.js'
import type { TaskPlaces } from './places.js'
import type { Receipt, WorkerExit } from './receipt.js'
import { sealTask } from './seal.js'
import type { WorkerFactory } from './worker-factory.js'

const CONCURRENT_TASKS = 8
const LOST: WorkerExit = { outcome: 'lost', exitCode: null, signal: null, cause: 'sandbox_vanished' }

/** Which tasks of which conductor. */
export interface VanishedOptions extends CallOptions {
  readonly conductorId: string
  readonly factory: WorkerFactory
  /** Whether somebody sees to the task, or can. */
  readonly isSeenTo: (taskId: string) => boolean
}

/** What became of workers that had vanished. */
export interface VanishedReport {
  readonly receipts: readonly Receipt[]
  readonly failures: readonly { readonly taskId: string; readonly error: ConductorError }[]
}

/**
 * Certifies and seals tasks of a conductor whose sandboxes went away while nobody lived who would have noticed: their intents
 * are open, and E2B knows no sandbox of theirs. Costs a request for every thousand tasks that there are, and some for each that
 * is looked at.
 */
export async function recoverVanished(options: VanishedOptions): Promise<VanishedReport> {
  const { factory, isSeenTo, signal } = options
  const receipts: Receipt[] = []
  const failures: VanishedReport['failures'][number][] = []
  const limit = pLimit(CONCURRENT_TASKS)
  const under: Promise<void>[] = []
  const recover = async (taskId: string): Promise<void> => {
    try {
      const receipt = await recoverOne(taskId, options)
      if (receipt !== undefined) receipts.push(receipt)
    } catch (error) {
      if (!isConductorError(error)) throw error
      failures.push({ taskId, error })
    }
  }
  const { intents } = factory
  if (intents === undefined) return { receipts, failures }
  try {
    for await (const taskId of intents.listOpen({ signal })) {
      if (!isSeenTo(taskId)) under.push(limit(() => recover(taskId)))
    }
  } finally {
    await Promise.all(under)
  }
  return { receipts, failures }
}

async function recoverOne(
  taskId: string,
  { conductorId, factory, signal }: VanishedOptions,
): Promise<Receipt | undefined> {
  const places = factory.placesOf(taskId)
  const { intents, manifests } = places
  const intent = (await intents?.read(taskId, { signal }))?.intent
  if (intent?.conductor !== conductorId || manifests === undefined) return undefined
  // Another process may be at it, which has not come to having a sandbox.
  if (Date.now() - Date.parse(intent.created_at) < START_WINDOW_MS) return undefined
  const manifest = await manifests.read(taskId, { signal })
  if (manifest?.attempts.some(({ spawn_id }) => spawn_id === intent.spawn_id) !== true) {
    if ((await factory.findSandboxes(taskId, { signal })).length > 0) return undefined
    const receipt = await sealVanished(intent, { ...places, manifests }, manifest, { signal })
    await intents?.close(intent, { signal })
    return receipt
  }
  await intents?.close(intent, { signal })
  return undefined
}

async function sealVanished(
  intent: Intent,
  places: TaskPlaces & { readonly manifests: ManifestStore },
  manifest: Manifest | undefined,
  { signal }: CallOptions,
): Promise<Receipt> {
  const { task_id: taskId, spawn_id: spawnId } = intent
  const known = new Set(manifest?.results.map(({ key }) => key))
  const kept: Delivery[] = await findDelivered(taskId, places, known, { signal })
  const attempt = (manifest?.attempts.length ?? 0) + 1
  const stored = kept.map(({ record }) => record.created_at).sort()
  const certificate: DeathCertificate = {
    v: 1,
    task_id: taskId,
    attempt,
    sandbox_id: '',
    cause: 'sandbox_vanished',
    at: new Date().toISOString(),
    outcome: 'lost',
    exit: null,
    last_heartbeat_at: null,
    last_seen_at: stored.at(-1) ?? intent.created_at,
    taken_over: true,
    evidence: [
      `conductor ${intent.conductor} began to start it at ${intent.created_at}, and no end of it was written down`,
      'E2B knows no sandbox of the task',
      stored.length === 0
        ? 'it stored nothing beyond its sandbox, if it ever had one'
        : `it stored ${stored.length} result(s), the last at ${stored.at(-1)}`,
    ],
    log_tail: { stdout: '', stderr: '' },
  }
  const certified = await storeCertificate(certificate, places, { signal })
  if (certified !== undefined) kept.push(certified)
  const records = kept.map(({ record }) => record)
  const end = { taskId, sandboxId: '', spawnId, attempt, exit: LOST, records, drained: false, signal }
  await sealTask(places.manifests, end)
  return {
    taskId,
    ...LOST,
    sealed: true,
    certificateKey: certified?.record.key,
    results: kept.map(toDeliveredResult),
    missingOutputs: [],
    failedOutputs: [],
    undelivered: [],
  }
}
