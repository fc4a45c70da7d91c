import type { CallOptions } from '../../call-options.js'
import { DEATH_CERTIFICATE_NAME, type DeathCertificate } from '../../protocol/death-certificate.js'
import type { Intent } from '../../protocol/intent.js'
import type { ManifestStore } from '../../stores/manifest-store.js'
import type { TaskPlaces } from '../places.js'
import { storeCertificate } from './death-certificate.js'
import { toDeliveredResult } from './finish-task.js'
import { findDelivered } from './found-results.js'
import type { Receipt, WorkerExit } from './receipt.js'
import { certificateOf, findAttempt, sealTask } from './seal.js'

/** It may have been killed while its end could not be written down, and it may never have had a sandbox. */
const LOST: WorkerExit = { outcome: 'lost', exitCode: null, signal: null, cause: 'unknown' }

/** Certifies and seals a worker of which nothing is left but the intent to start it. */
export async function sealVanished(
  intent: Intent,
  places: TaskPlaces & { readonly manifests: ManifestStore },
  { signal }: CallOptions = {},
): Promise<Receipt> {
  const { task_id: taskId, spawn_id: spawnId } = intent
  const manifest = await places.manifests.read(taskId, { signal })
  const known = new Set(manifest?.results.map(({ key }) => key))
  const kept = await findDelivered(taskId, places, known, { signal })
  const attempt = intent.attempt ?? (manifest?.attempts.length ?? 0) + 1
  const stored = kept
    .filter(({ record }) => record.name !== DEATH_CERTIFICATE_NAME)
    .map(({ record }) => record.created_at)
    .sort()
  const certificate: DeathCertificate = {
    v: 1,
    task_id: taskId,
    attempt,
    sandbox_id: '',
    cause: 'unknown',
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
  const certified = await storeCertificate(certificate, spawnId, places, { signal })
  const isNew = kept.every(({ record }) => record.key !== certified?.record.key)
  if (certified !== undefined && isNew) kept.push(certified)
  const records = kept.map(({ record }) => record)
  const end = { taskId, sandboxId: '', spawnId, attempt, exit: LOST, records, drained: false, signal }
  const sealed = await sealTask(places.manifests, end)
  return {
    taskId,
    ...LOST,
    sealed: true,
    certificateKey: certified?.record.key ?? certificateOf(findAttempt(sealed, { sandboxId: '', spawnId })),
    results: kept.map(toDeliveredResult),
    missingOutputs: [],
    failedOutputs: [],
    undelivered: [],
  }
}
