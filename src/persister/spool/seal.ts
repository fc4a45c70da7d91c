import { statSync } from 'node:fs'
import { ConductorError } from '../../errors.js'
import { removeFile } from '../../files/disk.js'
import { makeFolder, writeDurably } from '../../files/durable-file.js'
import { systemCode } from '../../files/system-code.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'

function sealPath(localDir: string, taskId: string): string {
  return `${workerFolder(localDir, taskId)}/${WORKER_FILES.sealed}`
}

/** Says that the conductor is about to take stock for the last time. A result whose record is not there by now may be missed. */
export async function sealSpool(localDir: string, taskId: string): Promise<void> {
  await makeFolder(workerFolder(localDir, taskId))
  await writeDurably(sealPath(localDir, taskId), '')
}

/** Takes the seal off: somebody runs a command again, and somebody will take stock again. */
export function unsealSpool(localDir: string, taskId: string): void {
  removeFile(sealPath(localDir, taskId))
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
 * Throws `CLOSED` when the spool is sealed. Asked after a result's record was written, a pass means that whoever sealed later
 * has the result in its list; so a result that only the spool has may be acknowledged then, and not otherwise.
 */
export function assertUnsealed(localDir: string, taskId: string): void {
  if (!exists(sealPath(localDir, taskId))) return
  throw new ConductorError('CLOSED', `${taskId} is being terminated, and no remote storage took the result`)
}

function exists(path: string): boolean {
  try {
    statSync(path)
    return true
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return false
    throw error
  }
}
