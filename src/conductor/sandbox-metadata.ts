import type { WorkerRecord } from '../protocol/worker-record.js'
import type { SandboxSummary } from '../sandbox/remote-sandbox.js'
import { type Access, isAccess } from './options.js'

/** Keys of E2B metadata by which conductors find their sandboxes again. Only who holds the E2B key can write them. */
export const METADATA = {
  conductor: 'stu-conductor',
  task: 'stu-task',
  spawn: 'stu-spawn',
  attempt: 'stu-attempt',
  deadline: 'stu-deadline',
  localDir: 'stu-local-dir',
  volume: 'stu-volume',
  access: 'stu-access',
  encryptionKey: 'stu-encryption-key',
} as const

/** What a sandbox of ours says of itself. */
export interface SandboxIdentity {
  readonly taskId: string
  readonly spawnId: string
  readonly conductorId: string
  /** Numbers it among the task's sandboxes. */
  readonly attempt: number | undefined
  /** When the worker's own time is up, had the sandbox been there at once and is it not extended. */
  readonly deadlineAt: Date | undefined
  readonly localDir: string
  /** Name of the volume that is its spool, if one is. */
  readonly volume: string | undefined
  /** How it was let write to S3. */
  readonly access: Access
  /** Public; what it stores is encrypted for it. */
  readonly encryptionKey: string | undefined
}

/** As metadata for E2B. */
export function toMetadata(identity: SandboxIdentity): Record<string, string> {
  return {
    [METADATA.conductor]: identity.conductorId,
    [METADATA.task]: identity.taskId,
    [METADATA.spawn]: identity.spawnId,
    [METADATA.localDir]: identity.localDir,
    [METADATA.access]: identity.access,
    ...(identity.attempt === undefined ? {} : { [METADATA.attempt]: String(identity.attempt) }),
    ...(identity.deadlineAt === undefined ? {} : { [METADATA.deadline]: identity.deadlineAt.toISOString() }),
    ...(identity.volume === undefined ? {} : { [METADATA.volume]: identity.volume }),
    ...(identity.encryptionKey === undefined ? {} : { [METADATA.encryptionKey]: identity.encryptionKey }),
  }
}

/** `undefined` for a sandbox that no conductor made. */
export function identityOf({ metadata }: SandboxSummary): SandboxIdentity | undefined {
  const { [METADATA.conductor]: conductorId, [METADATA.task]: taskId, [METADATA.spawn]: spawnId } = metadata
  const { [METADATA.localDir]: localDir, [METADATA.access]: access } = metadata
  if (conductorId === undefined || taskId === undefined || spawnId === undefined || localDir === undefined)
    return undefined
  if (!isAccess(access)) return undefined
  const { [METADATA.volume]: volume, [METADATA.encryptionKey]: encryptionKey } = metadata
  const { [METADATA.attempt]: number = '', [METADATA.deadline]: deadline = '' } = metadata
  const attempt = /^[1-9]\d{0,3}$/.test(number) ? Number(number) : undefined
  const deadlineAt = Number.isNaN(Date.parse(deadline)) ? undefined : new Date(deadline)
  return { conductorId, taskId, spawnId, attempt, deadlineAt, localDir, volume, access, encryptionKey }
}

/** Whether a worker's record is of this sandbox: a volume holds that of an earlier one until the conductor has written another. */
export function isRecordOf({ spawnId, volume }: SandboxIdentity, record: WorkerRecord | undefined): boolean {
  // What a sandbox has made of its own is no less its own.
  return record !== undefined && (volume === undefined || record.spawn_id === spawnId)
}
