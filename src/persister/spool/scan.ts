import { readdirSync, statSync } from 'node:fs'
import { removeFile } from '../../files/disk.js'
import { TEMPORARY_PREFIX } from '../../files/durable-file.js'
import { systemCode } from '../../files/system-code.js'
import { compareKeys, RECORD_SUFFIX, taskIdProblem } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import { mapFsError } from '../fs-error.js'
import { readResult, taskFolder } from './record-file.js'

/** Unfinished files that nobody has written to for so long are left over from a process that died. */
const ABANDONED_AFTER_MS = 24 * 3600 * 1000
/** Records read in a row before others of this process get a turn. */
const READ_IN_A_ROW = 256

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw mapFsError(error, `cannot list ${folder}`)
  }
}

/** Every whole result of a task in the spool, in key order. A body without its record is none. */
export async function listSpool(localDir: string, taskId: string): Promise<ResultRecord[]> {
  const names = listFolder(taskFolder(localDir, taskId))
  const files = names
    .filter((name) => name.endsWith(RECORD_SUFFIX) && !name.startsWith('.'))
    .map((name) => name.slice(0, -RECORD_SUFFIX.length))
  const records: ResultRecord[] = []
  for (const [i, file] of files.entries()) {
    if (i > 0 && i % READ_IN_A_ROW === 0) await new Promise<void>((done) => setImmediate(done))
    const record = readResult(localDir, taskId, file)
    if (record !== undefined) records.push(record)
  }
  return records.sort((a, b) => compareKeys(a.key, b.key))
}

/** Tasks that have a folder in the spool. */
export function listTasks(localDir: string): string[] {
  return listFolder(localDir)
    .filter((name) => taskIdProblem(name) === undefined)
    .sort()
}

/**
 * Removes unfinished files of processes that died. Only never-acknowledged work is touched: whoever should still be
 * writing one fails at its rename and says so.
 */
export function sweepAbandoned(localDir: string, taskId: string): void {
  const folder = taskFolder(localDir, taskId)
  for (const name of listFolder(folder)) {
    if (!name.startsWith(TEMPORARY_PREFIX)) continue
    const path = `${folder}/${name}`
    try {
      if (Date.now() - statSync(path).mtimeMs > ABANDONED_AFTER_MS) removeFile(path)
    } catch (error) {
      // Finished by its owner meanwhile, or not ours to remove: either way nothing is lost by leaving it.
      if (!['ENOENT', 'EACCES', 'EPERM', 'EROFS'].includes(systemCode(error) ?? '')) throw error
    }
  }
}
