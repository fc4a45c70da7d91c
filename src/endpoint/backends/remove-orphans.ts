import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { RECORD_SUFFIX, taskIdProblem } from '../../protocol/key.js'
import { isFolder, namesIn, statIfThere } from './files.js'

/** A persister that shares the folder may be just about to write the record; it takes it far less than this. */
const ORPHAN_AGE_MS = 15 * 60_000

/** Removes bodies that a crash left without a record: nobody was told that they were stored. */
export async function removeOrphans(folder: string, nowMs: number): Promise<void> {
  for (const taskId of await namesIn(folder)) {
    if (taskIdProblem(taskId) !== undefined || !(await isFolder(join(folder, taskId)))) continue
    const names = new Set(await namesIn(join(folder, taskId)))
    for (const name of names) {
      if (!resultPattern.test(name) || name.endsWith(RECORD_SUFFIX) || names.has(`${name}${RECORD_SUFFIX}`))
        continue
      const path = join(folder, taskId, name)
      const found = await statIfThere(path)
      if (found?.isFile() === true && nowMs - found.ctimeMs > ORPHAN_AGE_MS) await rm(path)
    }
  }
}

/** How the file name of a result begins; anything else is not ours to remove. */
const resultPattern = /^\d{8}-\d{6}-/
