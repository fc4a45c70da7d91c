import { readdir, rm, stat } from 'node:fs/promises'
import { compareKeys, RECORD_SUFFIX, taskIdProblem } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import { mapFsError, systemCode } from '../fs-error.js'
import { TEMPORARY_PREFIX } from './durable-file.js'
import { readResult, taskFolder } from './record-file.js'

/** Unfinished files that nobody has written to for so long are left over from a process that died. */
const ABANDONED_AFTER_MS = 24 * 3600 * 1000
/** Records read at once. */
const READ_AT_ONCE = 32

async function listFolder(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw mapFsError(error, `cannot list ${folder}`)
  }
}

/** Every whole result of a task in the spool, in key order. A body without its record is none. */
export async function listSpool(localDir: string, taskId: string): Promise<ResultRecord[]> {
  const names = await listFolder(taskFolder(localDir, taskId))
  const files = names
    .filter((name) => name.endsWith(RECORD_SUFFIX) && !name.startsWith('.'))
    .map((name) => name.slice(0, -RECORD_SUFFIX.length))
  const records: ResultRecord[] = []
  for (let i = 0; i < files.length; i += READ_AT_ONCE) {
    const read = await Promise.all(
      files.slice(i, i + READ_AT_ONCE).map((file) => readResult(localDir, taskId, file)),
    )
    for (const record of read) if (record !== undefined) records.push(record)
  }
  return records.sort((a, b) => compareKeys(a.key, b.key))
}

/** Tasks that have a folder in the spool. */
export async function listTasks(localDir: string): Promise<string[]> {
  return (await listFolder(localDir)).filter((name) => taskIdProblem(name) === undefined).sort()
}

/**
 * Removes unfinished files of processes that died. Only never-acknowledged work is touched: whoever should still be
 * writing one fails at its rename and says so.
 */
export async function sweepAbandoned(localDir: string, taskId: string): Promise<void> {
  const folder = taskFolder(localDir, taskId)
  for (const name of await listFolder(folder)) {
    if (!name.startsWith(TEMPORARY_PREFIX)) continue
    const path = `${folder}/${name}`
    try {
      if (Date.now() - (await stat(path)).mtimeMs > ABANDONED_AFTER_MS) await rm(path, { force: true })
    } catch (error) {
      // Finished by its owner meanwhile, or not ours to remove: either way nothing is lost by leaving it.
      if (!['ENOENT', 'EACCES', 'EPERM', 'EROFS'].includes(systemCode(error) ?? '')) throw error
    }
  }
}
