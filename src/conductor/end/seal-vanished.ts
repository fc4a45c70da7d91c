import type { CallOptions } from '../../call-options.js'
import { DEATH_CERTIFICATE_NAME, type DeathCertificate } from '../../protocol/death-certificate.js'
import type { SandboxIntent } from '../../protocol/intent.js'
import type { ManifestStore } from '../../stores/manifest-store.js'
import type { TaskPlaces } from '../places.js'
import { drawCertificate, storeCertificate } from './death-certificate.js'
import { toDeliveredResult } from './deliver.js'
import { findDelivered } from './found-results.js'
import type { Receipt, WorkerExit } from './receipt.js'
import { attributedKeys, certificateOf, findAttempt, sealTask } from './seal.js'

/** It may have been killed while its end could not be written down. */
const LOST: WorkerExit = { outcome: 'lost', exitCode: null, signal: null, cause: 'unknown' }

/**
 * Certifies and seals a worker of which nothing is left but what a conductor wrote down when it began. Undefined where there never
 * was a sandbox, as far as anything tells. Rejects where a place cannot be asked that might know.
 *
 * @param options.next the sandbox that the task had after it, if it had one
 */
export async function sealVanished(
  sandbox: SandboxIntent,
  places: TaskPlaces & { readonly manifests: ManifestStore },
  { next, signal }: CallOptions & { readonly next?: SandboxIntent | undefined } = {},
): Promise<Receipt | undefined> {
  const { task_id: taskId, spawn_id: spawnId, sandbox_id: sandboxId = '', attempt = 1 } = sandbox
  const manifest = await places.manifests.read(taskId, { signal })
  const overAt = next === undefined ? undefined : new Date(next.created_at)
  const others = new Set(attributedKeys(manifest))
  const gone = { spawnId, attempt, beganAt: sandbox.created_at, overAt, others }
  const { found, problem } = await findDelivered(taskId, places, gone, { signal })
  if (problem !== undefined) throw problem
  const kept = [...found]
  if (sandboxId === '' && kept.length === 0) return undefined
  const before = kept.find(({ record }) => record.name === DEATH_CERTIFICATE_NAME)
  const stored = kept
    .filter((delivery) => delivery !== before)
    .map(({ record }) => record.created_at)
    .sort()
  const certificate: DeathCertificate = {
    v: 1,
    task_id: taskId,
    attempt,
    sandbox_id: sandboxId,
    cause: 'unknown',
    at: new Date().toISOString(),
    outcome: 'lost',
    exit: null,
    last_heartbeat_at: null,
    last_seen_at: stored.at(-1) ?? sandbox.created_at,
    taken_over: true,
    evidence: [
      `conductor ${sandbox.conductor} began to start it at ${sandbox.created_at}, and no end of it was written down`,
      `E2B knows no sandbox of ${sandboxId === '' ? 'it' : `it; it had ${sandboxId}`}`,
      stored.length === 0
        ? 'it stored nothing beyond its sandbox'
        : `it stored ${stored.length} result(s), the last at ${stored.at(-1)}`,
    ],
    log_tail: { stdout: '', stderr: '' },
  }
  // Whoever certified it before may have seen it die.
  const drawn = drawCertificate(certificate, spawnId, places)
  const certified = before ?? (await storeCertificate(drawn, places, { signal }))
  if (certified !== undefined && certified !== before) kept.push(certified)
  const records = kept.map(({ record }) => record)
  const { volume } = sandbox
  const end = { taskId, sandboxId, spawnId, attempt, volume, exit: LOST, records, drained: false, signal }
  const sealed = await sealTask(places.manifests, end)
  return {
    taskId,
    ...LOST,
    sealed: true,
    certificateKey: certified?.record.key ?? certificateOf(findAttempt(sealed, { sandboxId, spawnId })),
    results: kept.map(toDeliveredResult),
    missingOutputs: [],
    failedOutputs: [],
    undelivered: [],
  }
}
