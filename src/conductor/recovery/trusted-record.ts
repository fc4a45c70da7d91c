import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import { sandboxesOf } from '../../stores/s3/s3-intents.js'
import { LEASE_MS } from '../lease.js'
import type { TaskPlaces } from '../places.js'
import type { SandboxIdentity } from '../sandbox-metadata.js'

/** No worker is given more at once. */
const MAX_TIME_MS = 86_400_000

/**
 * A worker's record, but for what its sandbox may have made of it to its own good or at another's cost: by the metadata, which only who
 * holds the E2B key can write, and, where it says that its time was extended, by the task's intent. Where S3 cannot tell, that is
 * believed for a day at most.
 */
export async function trustedRecord(
  record: WorkerRecord,
  { spawnId, attempt = record.attempt, deadlineAt }: SandboxIdentity,
  places: Pick<TaskPlaces, 'intents'>,
  options: CallOptions = {},
): Promise<WorkerRecord> {
  const trusted = { ...record, spawn_id: spawnId, attempt }
  if (deadlineAt === undefined) return trusted
  const saidMs = Date.parse(record.deadline_at)
  // A worker's time begins with its sandbox, which may take its while to be made.
  const givenMs = deadlineAt.getTime() + LEASE_MS
  if (saidMs <= givenMs) return trusted
  const untilMs = await extendedUntil(trusted, places, options)
  const endMs = Math.min(saidMs, Math.max(givenMs, untilMs ?? deadlineAt.getTime() + MAX_TIME_MS))
  return { ...trusted, deadline_at: new Date(endMs).toISOString() }
}

/** What conductors wrote down of it last; undefined where nobody can be asked. */
async function extendedUntil(
  { task_id: taskId, spawn_id: spawnId }: WorkerRecord,
  { intents }: Pick<TaskPlaces, 'intents'>,
  { signal }: CallOptions,
): Promise<number | undefined> {
  if (intents === undefined) return undefined
  try {
    const there = sandboxesOf((await intents.read(taskId, { signal }))?.intent)
    const until = there.find(({ spawn_id }) => spawn_id === spawnId)?.deadline_at
    return until === undefined ? Number.NEGATIVE_INFINITY : Date.parse(until)
  } catch (error) {
    if (!isConductorError(error)) throw error
    return undefined
  }
}
