import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { systemCode } from '../../files/system-code.js'
import { compareKeys } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import { CLAIMS_FOLDER, claimToken, spoolFileName } from '../../protocol/spool-layout.js'
import { readRecordText } from './record-file.js'

/*
 * A result that the spool had no room for has its key all the same, and the next one of its name may find room again: so such
 * keys are noted where every process of this machine looks before it takes one. A store that lets its objects be overwritten,
 * as one reached by a POST policy does, would otherwise replace the one result by the other.
 */

function claimsFolder(): string {
  return `${tmpdir()}/${CLAIMS_FOLDER}`
}

function tokenPath(taskId: string, file: string): string {
  return `${claimsFolder()}/${claimToken(taskId, file)}`
}

/** Whether a result that is not in the spool has this file name's key. */
export function isClaimedElsewhere(taskId: string, file: string): boolean {
  try {
    statSync(tokenPath(taskId, file))
    return true
  } catch {
    // Not there, or nothing can be looked up there; then nothing could be noted either.
    return false
  }
}

/** Takes a file name's key for a result that is not in the spool; false when another such result has it. */
export function claimElsewhere(taskId: string, file: string): boolean {
  const path = tokenPath(taskId, file)
  try {
    mkdirSync(claimsFolder(), { recursive: true })
    writeFileSync(path, '', { flag: 'wx' })
    return true
  } catch (error) {
    // Where nothing at all can be written, a store's own refusal to overwrite is the only protection left.
    return systemCode(error) !== 'EEXIST'
  }
}

/** Notes what a result is that no spool tells of: whoever takes stock is to hear of it, and whoever stores its source again. */
export function noteElsewhere(record: ResultRecord): void {
  const path = tokenPath(record.task_id, spoolFileName(record.timestamp, record.name))
  try {
    writeFileSync(`${path}.new`, JSON.stringify(record))
    renameSync(`${path}.new`, path)
  } catch {
    // It is stored remotely and acknowledged as that; the remote tier can list it.
  }
}

/** Every result of a task that was noted so, in key order. */
export function listElsewhere(taskId: string): ResultRecord[] {
  let names: string[]
  try {
    names = readdirSync(claimsFolder()).filter((name) => !name.endsWith('.new'))
  } catch {
    // Not there: nothing was noted.
    return []
  }
  const records = names.flatMap((name) => {
    try {
      const record = readRecordText(readFileSync(`${claimsFolder()}/${name}`, 'utf8'))
      return record?.task_id === taskId ? [record] : []
    } catch (error) {
      if (systemCode(error) === undefined) throw error
      // Somebody else's, or gone: a note that cannot be read is as one that could not be written.
      return []
    }
  })
  return records.sort((a, b) => compareKeys(a.key, b.key))
}
