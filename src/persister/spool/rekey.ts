import { removeFile } from '../../files/disk.js'
import { syncFolder } from '../../files/durable-file.js'
import { formatKey, nextTimestamp, RECORD_SUFFIX } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import { spoolFileName } from '../../protocol/spool-layout.js'
import { takeFurtherName } from './claim.js'
import { isClaimedElsewhere } from './claims-elsewhere.js'
import type { Committed } from './commit.js'
import { dropMarker, markPending, type PendingMarker } from './pending.js'
import { bodyPath, taskFolder, writeRecord } from './record-file.js'

/**
 * Gives a result the next free key, because a store holds another's under its own. At every moment one whole result is in
 * the spool, and a second process doing the same ends with the same new key.
 */
export async function rekey(
  localDir: string,
  record: ResultRecord,
  marker: PendingMarker,
): Promise<Committed> {
  const folder = taskFolder(localDir, record.task_id)
  const oldPath = bodyPath(localDir, record)
  let timestamp = record.timestamp
  let file: string
  do {
    timestamp = nextTimestamp(timestamp)
    file = spoolFileName(timestamp, record.name)
  } while (isClaimedElsewhere(record.task_id, file) || !takeFurtherName(oldPath, `${folder}/${file}`))
  const key = formatKey({ taskId: record.task_id, timestamp, name: record.name })
  const moved: ResultRecord = { ...record, timestamp, key, errors: {} }
  const newMarker = markPending(localDir, record.task_id, file)
  await writeRecord(localDir, moved, syncFolder(folder))
  removeFile(`${oldPath}${RECORD_SUFFIX}`)
  removeFile(oldPath)
  marker.settle()
  dropMarker(localDir, record.task_id, spoolFileName(record.timestamp, record.name))
  return { record: moved, marker: newMarker }
}
