import type { CallOptions } from '../call-options.js'
import { compareKeys } from '../protocol/key.js'
import type { Manifest, ManifestAttempt } from '../protocol/manifest.js'
import type { ResultRecord } from '../protocol/record.js'
import type { ManifestStore } from '../stores/manifest-store.js'
import type { WorkerExit } from './receipt.js'

/** What one sandbox of a task came to. */
export interface SealOptions extends CallOptions {
  readonly taskId: string
  readonly attempt: number
  /** Empty where nobody lived to see which it was; the spawn then tells. */
  readonly sandboxId: string
  readonly spawnId: string
  readonly exit: WorkerExit
  /** Kept results that the sandbox held, or that were found of one that is gone. */
  readonly records: readonly ResultRecord[]
  /** False when the sandbox was gone before anybody asked what it holds. */
  readonly drained: boolean
}

/**
 * Writes a sandbox's end into its task's manifest, beside what earlier sandboxes of the task left. Where another conductor
 * sealed this very sandbox before it went, that one's word stands.
 */
export async function sealTask(manifests: ManifestStore, options: SealOptions): Promise<Manifest> {
  const { signal } = options
  const change = (present: Manifest | undefined): Manifest | undefined => addAttempt(present, options)
  // A task has one sandbox as a rule, and then nothing is there yet.
  const sealed = await manifests.update(options.taskId, change, { signal, expectNone: true })
  return sealed as Manifest
}

function addAttempt(present: Manifest | undefined, options: SealOptions): Manifest | undefined {
  const { taskId, sandboxId, spawnId, attempt, exit, records, drained } = options
  const before = present?.attempts ?? []
  const isThis = ({ sandbox_id, spawn_id }: ManifestAttempt): boolean =>
    sandboxId === '' ? spawn_id === spawnId : sandbox_id === sandboxId
  if (!drained && before.some(isThis)) return undefined
  const now = new Date().toISOString()
  const others = before.filter((other) => !isThis(other))
  const status =
    exit.exitCode === null && exit.signal === null ? null : { code: exit.exitCode, signal: exit.signal }
  // A spool on a volume holds what earlier sandboxes left as well.
  const attributed = new Set(others.flatMap(({ keys }) => keys))
  const mine: ManifestAttempt = {
    attempt,
    sandbox_id: sandboxId,
    spawn_id: spawnId,
    ended_at: now,
    outcome: exit.outcome,
    exit: status,
    cause: exit.cause ?? null,
    keys: records.flatMap(({ key }) => (attributed.has(key) ? [] : [key])),
  }
  const byKey = new Map([...(present?.results ?? []), ...records].map((record) => [record.key, record]))
  return {
    v: 1,
    task_id: taskId,
    sealed_at: now,
    outcome: exit.outcome,
    exit: status,
    // What another sandbox may have left unseen stays so.
    complete: drained && (others.length === 0 || present?.complete === true),
    attempts: [...others, mine],
    ...(present?.deleting === undefined ? {} : { deleting: present.deleting }),
    results: [...byKey.values()].sort((a, b) => compareKeys(a.key, b.key)),
  }
}
