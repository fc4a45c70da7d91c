import { isConductorError } from '../errors.js'
import type { ResultRecord } from '../protocol/record.js'
import { spoolFileName } from '../protocol/spool-layout.js'
import { nowMs } from './clock.js'
import { type Courier, type Requirement, satisfies } from './courier.js'
import { describeError } from './fs-error.js'
import type { DeliveryContext } from './remote/remote-store.js'
import type { Settings } from './settings.js'
import type { Committed } from './spool/commit.js'
import { DeliveryNote } from './spool/delivery-note.js'
import { dropMarker, listMarked, takePending } from './spool/pending.js'
import { bodyPath, readResult } from './spool/record-file.js'
import { rekey } from './spool/rekey.js'
import { listUploads, resumeFile } from './spool/resume-file.js'
import { listSpool, sweepAbandoned } from './spool/scan.js'

/** How often a result may find its key taken in a store before that counts as a failure of its own. */
const MAX_REKEYS = 16
/** After this long, a call that stores something new starts on no further old result. */
const CATCH_UP_MS = 60_000

/** Delivers a result of the spool, notes in its record what became of it, and gives that record. */
export async function deliverCommitted(
  settings: Settings,
  courier: Courier,
  committed: Committed,
  requirement: Requirement,
  context: DeliveryContext,
): Promise<ResultRecord> {
  let { record, marker } = committed
  const note = new DeliveryNote(settings.localDir)
  try {
    for (let rekeys = 0; ; rekeys++) {
      const body = {
        path: bodyPath(settings.localDir, record),
        sizeBytes: record.size,
        sha256: record.sha256,
      }
      try {
        const resume = resumeFile(
          settings.localDir,
          record.task_id,
          spoolFileName(record.timestamp, record.name),
        )
        const foresee = (expected: ResultRecord): void => note.foresee(expected)
        const delivered = await courier.deliver(record, body, requirement, { ...context, resume }, foresee)
        if (delivered !== record) await noteDelivery(settings, note, delivered)
        if (delivered.stored.length === 0) return delivered
        if (!satisfies(delivered, 's3')) await courier.abandon(resume)
        marker.settle()
        return delivered
      } catch (error) {
        if (!isConductorError(error) || error.code !== 'EXISTS' || rekeys >= MAX_REKEYS) throw error
        ;({ record, marker } = await rekey(settings.localDir, record, marker))
      }
    }
  } finally {
    await note.discard()
    if (!marker.settled) marker.release()
  }
}

/** The result is where it is, whether or not that can be written down; at worst it is offered to the same key again. */
async function noteDelivery(settings: Settings, note: DeliveryNote, record: ResultRecord): Promise<void> {
  try {
    await note.write(record)
  } catch (error) {
    settings.warn(`cannot note the delivery of ${record.key}: ${describeError(error)}`)
  }
}

/** Delivers what earlier calls left behind, as long as it goes well; called after something new got through. */
export async function catchUp(settings: Settings, courier: Courier, taskId: string): Promise<void> {
  const startedMs = nowMs()
  for (const file of listMarked(settings.localDir, taskId)) {
    if (nowMs() - startedMs > CATCH_UP_MS) return
    const record = readResult(settings.localDir, taskId, file)
    if (record === undefined) continue
    if (record.stored.length > 0) {
      dropMarker(settings.localDir, taskId, file)
      continue
    }
    const marker = takePending(settings.localDir, record)
    if (marker === undefined) continue
    const after = await deliverCommitted(settings, courier, { record, marker }, undefined, {})
    if (after.stored.length === 0) return
  }
}

/** Has the stores forget uploads of results that got to another tier, or are gone. */
async function abandonUploads(settings: Settings, courier: Courier, taskId: string): Promise<void> {
  for (const file of listUploads(settings.localDir, taskId)) {
    const record = readResult(settings.localDir, taskId, file)
    if (record?.stored.length === 0) continue
    // Whoever holds the marker may be sending it there as well, because that was required.
    const marker = record === undefined ? undefined : takePending(settings.localDir, record)
    if (record !== undefined && marker === undefined) continue
    await courier.abandon(resumeFile(settings.localDir, taskId, file))
    marker?.settle()
  }
}

/** What a flush found and did. */
export interface Flushed {
  /** Delivered now. */
  readonly delivered: ResultRecord[]
  /** Still only in the spool, because no tier took them or another process is at work on them. */
  readonly pending: ResultRecord[]
}

/** Delivers everything of a task that no remote tier has, oldest first. */
export async function flushTask(
  settings: Settings,
  courier: Courier,
  taskId: string,
  requirement: Requirement,
  context: DeliveryContext,
): Promise<Flushed> {
  sweepAbandoned(settings.localDir, taskId)
  const flushed: Flushed = { delivered: [], pending: [] }
  const hasRemote = await courier.hasRemote()
  for (const record of await listSpool(settings.localDir, taskId)) {
    if (record.stored.length > 0 && satisfies(record, requirement)) {
      dropMarker(settings.localDir, taskId, spoolFileName(record.timestamp, record.name))
      continue
    }
    const marker = hasRemote ? takePending(settings.localDir, record) : undefined
    if (marker === undefined) {
      flushed.pending.push(record)
      continue
    }
    const after = await deliverCommitted(settings, courier, { record, marker }, requirement, context)
    const done = after.stored.length > 0 && satisfies(after, requirement)
    ;(done ? flushed.delivered : flushed.pending).push(after)
  }
  if (hasRemote) await abandonUploads(settings, courier, taskId)
  return flushed
}
