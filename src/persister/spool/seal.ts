import { readdirSync, readFileSync, statSync } from 'node:fs'
import { ConductorError } from '../../errors.js'
import { createText } from '../../files/disk.js'
import { systemCode } from '../../files/system-code.js'
import { FENCE_SECONDS, WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'

/**
 * Says that the conductor whose fence stands around the sandbox is about to take stock for the last time. A result whose record
 * is not there by now may be missed. Only the end of that fence takes the seal off. Throws `CLOSED` where there is none: nothing
 * would be sealed. It speaks to processes that are alive, and so need not survive a crash.
 */
export function sealSpool(localDir: string, taskId: string, fenceId: string): void {
  const folder = workerFolder(localDir, taskId)
  if (exists(fencePath(folder, fenceId))) createText(`${folder}/${WORKER_FILES.sealed}${fenceId}`, '')
  if (stands(folder, fenceId)) return
  throw new ConductorError('CLOSED', `nobody is terminating ${taskId} as ${fenceId}`)
}

/**
 * Throws `UNAVAILABLE` in a conductor's worker for a result of another task that only the spool has: the conductor drains the
 * worker's own task, so such a result would go with the sandbox.
 */
export function assertOwnTask(localDir: string, taskId: string, workerId: string | undefined): void {
  if (workerId === undefined || workerId === taskId) return
  if (!exists(`${workerFolder(localDir, workerId)}/${WORKER_FILES.bin}`)) return
  const line = `no remote storage took the result, and only results of ${workerId} are safe in this spool`
  throw new ConductorError('UNAVAILABLE', line, { retryable: true })
}

/**
 * Throws `CLOSED` while the spool is sealed. Asked after a result was noted where whoever takes stock looks, a pass means that
 * whoever seals later has the result in its list, and so it may be acknowledged. Otherwise it may not, wherever it is stored: the
 * list may be complete without it, and nobody looks for more.
 */
export function assertUnsealed(localDir: string, taskId: string): void {
  const folder = workerFolder(localDir, taskId)
  const isSealed = namesIn(folder).some(
    (name) => name.startsWith(WORKER_FILES.sealed) && stands(folder, name.slice(WORKER_FILES.sealed.length)),
  )
  if (isSealed) {
    throw new ConductorError('CLOSED', `${taskId} is being terminated, and the result may not be seen`)
  }
}

function fencePath(folder: string, fenceId: string): string {
  return `${folder}/${WORKER_FILES.finishing}${fenceId}`
}

/** Whether a fence is there whose owner may still act on it. */
function stands(folder: string, fenceId: string): boolean {
  const path = fencePath(folder, fenceId)
  try {
    const at = readFileSync(path, 'latin1').trim()
    const uptime = /^\d+/.exec(readFileSync('/proc/uptime', 'latin1'))?.[0]
    if (!/^\d+$/.test(at) || uptime === undefined) {
      // Being renewed just now, or there was no room for more than its name.
      return Date.now() - statSync(path).mtimeMs < FENCE_SECONDS * 1000
    }
    const ageSeconds = Number(uptime) - Number(at)
    return ageSeconds >= 0 && ageSeconds < FENCE_SECONDS
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if (isAbsent(error)) return []
    throw error
  }
}

function exists(path: string): boolean {
  try {
    statSync(path)
    return true
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
}

function isAbsent(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')
}
