import { createHash } from 'node:crypto'
import { mkdirSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { systemCode } from '../fs-error.js'

/*
 * A result that the spool had no room for has its key all the same, and the next one of its name may find room again: so such
 * keys are noted where every process of this machine looks before it takes one. A store that lets its objects be overwritten,
 * as one reached by a POST policy does, would otherwise replace the one result by the other.
 */

function tokenPath(taskId: string, file: string): string {
  const token = createHash('sha256').update(`${taskId}/${file}`).digest('hex')
  return `${tmpdir()}/persist-result-claims/${token}`
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
    mkdirSync(path.slice(0, path.lastIndexOf('/')), { recursive: true })
    writeFileSync(path, '', { flag: 'wx' })
    return true
  } catch (error) {
    // Where nothing at all can be written, a store's own refusal to overwrite is the only protection left.
    return systemCode(error) !== 'EEXIST'
  }
}
