import { readFileSync, statSync } from 'node:fs'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { mapFsError } from '../fs-error.js'

/**
 * The public key that a conductor left for a task, for calls whose environment has lost it on the way, as `sudo` and `env -i`
 * make it: what they store would lie there in clear. Throws when there is one that cannot be read.
 */
export function readKeyFile(localDir: string, taskId: string): string | undefined {
  const path = `${workerFolder(localDir, taskId)}/${WORKER_FILES.encryptionKey}`
  try {
    if (statSync(path, { throwIfNoEntry: false }) === undefined) return undefined
    return readFileSync(path, 'utf8').trim() || undefined
  } catch (error) {
    // Where there is no folder, a conductor has left nothing in it.
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined
    throw mapFsError(error, `cannot read ${path}`)
  }
}
