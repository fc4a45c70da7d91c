import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { systemCode } from '../../files/system-code.js'
import { compareKeys } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import { CLAIMS_FOLDER, claimToken, MEMORY_FOLDER, spoolFileName } from '../../protocol/spool-layout.js'
import { readRecordText } from './record-file.js'

/*
 * A result that the spool had no room for has its key all the same, and the next one of its name may find room again: so such
 * keys are noted where every process of this machine looks before it takes one. A store that lets its objects be overwritten,
 * as one reached by a POST policy does, would otherwise replace the one result by the other.
 */

/** The second is memory: the disk on which the spool has no room may be the only one. */
function claimsFolders(): readonly string[] {
  return [...new Set([tmpdir(), MEMORY_FOLDER])].map((folder) => `${folder}/${CLAIMS_FOLDER}`)
}

/** Whether a result that is not in the spool has this file name's key. */
export function isClaimedElsewhere(taskId: string, file: string): boolean {
  const token = claimToken(taskId, file)
  // Where nothing can be looked up, nothing could be noted either.
  return claimsFolders().some((folder) => existsSync(`${folder}/${token}`))
}

/** Takes a file name's key for a result that is not in the spool; false when another such result has it. */
export function claimElsewhere(taskId: string, file: string): boolean {
  if (isClaimedElsewhere(taskId, file)) return false
  const token = claimToken(taskId, file)
  for (const folder of claimsFolders()) {
    try {
      mkdirSync(folder, { recursive: true })
      writeFileSync(`${folder}/${token}`, '', { flag: 'wx' })
      return true
    } catch (error) {
      if (systemCode(error) === 'EEXIST') return false
    }
  }
  // Where nothing at all can be written, a store's own refusal to overwrite is the only protection left.
  return true
}

/** Notes what a result is that no spool tells of: whoever takes stock is to hear of it, and whoever stores its source again. */
export function noteElsewhere(record: ResultRecord): void {
  const token = claimToken(record.task_id, spoolFileName(record.timestamp, record.name))
  for (const folder of claimsFolders()) {
    const path = `${folder}/${token}`
    try {
      mkdirSync(folder, { recursive: true })
      writeFileSync(`${path}.new`, JSON.stringify(record))
      renameSync(`${path}.new`, path)
      return
    } catch {
      // Where there is no place at all, it is stored remotely and acknowledged as that; the remote tier can list it.
    }
  }
}

/** Every result of a task that was noted so, in key order. */
export function listElsewhere(taskId: string): ResultRecord[] {
  const records = claimsFolders().flatMap((folder) =>
    notesIn(folder).filter(({ task_id }) => task_id === taskId),
  )
  return records.sort((a, b) => compareKeys(a.key, b.key))
}

function notesIn(folder: string): ResultRecord[] {
  let names: string[]
  try {
    names = readdirSync(folder).filter((name) => !name.endsWith('.new'))
  } catch {
    // Not there: nothing was noted.
    return []
  }
  return names.flatMap((name) => {
    try {
      return readRecordText(readFileSync(`${folder}/${name}`, 'utf8')) ?? []
    } catch (error) {
      if (systemCode(error) === undefined) throw error
      // Somebody else's, or gone: a note that cannot be read is as one that could not be written.
      return []
    }
  })
}
