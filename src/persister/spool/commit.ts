import { removeFile } from '../../files/disk.js'
import { syncFolder } from '../../files/durable-file.js'
import { formatKey, RECORD_SUFFIX } from '../../protocol/key.js'
import type { JsonObject, ResultRecord } from '../../protocol/record.js'
import { claimName } from './claim.js'
import { markPending, type PendingMarker } from './pending.js'
import { taskFolder, writeRecord } from './record-file.js'
import { type Body, SpoolFailure, type Staged } from './stage.js'

/** What a result is to be called and described as; its key is found when it is committed. */
export interface Draft {
  readonly taskId: string
  /** An archived directory's ends in `.tar.gz`. */
  readonly name: string
  /** When it was handed over; the key's timestamp is this or the first free second after it. */
  readonly createdAt: Date
  readonly timestamp: string
  readonly contentType: string
  readonly metadata: JsonObject
  readonly archive: 'tar.gz' | null
}

/** A result that is safe in the spool, and the marker that says who delivers it. */
export interface Committed {
  readonly record: ResultRecord
  readonly marker: PendingMarker
}

/** The record of a draft and its body at a timestamp. */
export function makeRecord(draft: Draft, body: Body, timestamp: string): ResultRecord {
  return {
    v: 1,
    task_id: draft.taskId,
    timestamp,
    name: draft.name,
    key: formatKey({ taskId: draft.taskId, timestamp, name: draft.name }),
    size: body.sizeBytes,
    sha256: body.sha256,
    content_type: draft.contentType,
    metadata: draft.metadata,
    created_at: draft.createdAt.toISOString(),
    archive: draft.archive,
    stored: [],
    errors: {},
  }
}

/**
 * Makes a staged body a result. The record is put in its place last, when body and name are safe on disk: a name without a
 * record is no result, so the disk can be at work on all three at a time.
 */
export async function commit(localDir: string, draft: Draft, body: Staged): Promise<Committed> {
  const folder = taskFolder(localDir, draft.taskId)
  let path: string | undefined
  let marker: PendingMarker | undefined
  try {
    const { timestamp, file } = claimName(folder, body.path, draft.timestamp, draft.name)
    path = `${folder}/${file}`
    marker = markPending(localDir, draft.taskId, file)
    const record = makeRecord(draft, body, timestamp)
    await writeRecord(localDir, record, Promise.all([body.synced, syncFolder(folder)]))
    return { record, marker }
  } catch (error) {
    if (path !== undefined) withdraw(path, marker)
    throw error instanceof SpoolFailure ? error : new SpoolFailure(error, folder)
  }
}

/** Takes back what is not going to be acknowledged: it may yet be stored elsewhere, under another key. */
function withdraw(path: string, marker: PendingMarker | undefined): void {
  try {
    removeFile(`${path}${RECORD_SUFFIX}`)
    removeFile(path)
    marker?.settle()
  } catch {
    // The disk refuses this as well, and has been complained of; without its record a body is no result.
    marker?.release()
  }
}
