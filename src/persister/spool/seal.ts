import { rm, stat } from 'node:fs/promises'
import { ConductorError } from '../../errors.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { systemCode } from '../fs-error.js'
import { makeFolder, writeDurably } from './durable-file.js'

function sealPath(localDir: string, taskId: string): string {
  return `${workerFolder(localDir, taskId)}/${WORKER_FILES.sealed}`
}

/** Says that the conductor is about to take stock for the last time. A result whose record is not there by now may be missed. */
export async function sealSpool(localDir: string, taskId: string): Promise<void> {
  await makeFolder(workerFolder(localDir, taskId))
  await writeDurably(sealPath(localDir, taskId), '')
}

/** Takes the seal off: somebody runs a command again, and somebody will take stock again. */
export async function unsealSpool(localDir: string, taskId: string): Promise<void> {
  await rm(sealPath(localDir, taskId), { force: true })
}

/**
 * Throws `CLOSED` when the spool is sealed. Asked after a result's record was written, a pass means that whoever sealed later
 * has the result in its list; so a result that only the spool has may be acknowledged then, and not otherwise.
 */
export async function assertUnsealed(localDir: string, taskId: string): Promise<void> {
  try {
    await stat(sealPath(localDir, taskId))
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return
    throw error
  }
  throw new ConductorError('CLOSED', `${taskId} is being terminated, and no remote storage took the result`)
}
