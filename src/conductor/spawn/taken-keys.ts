import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import { formatTimestamp, splitKey } from '../../protocol/key.js'
import { CLAIMS_FOLDER, claimToken, spoolFileName } from '../../protocol/spool-layout.js'
import type { SandboxFile } from '../../sandbox/remote-sandbox.js'
import type { ResultStore } from '../../stores/result-store.js'

/** Keys older than this are no new sandbox's, however wrong a clock. */
const CLOCK_MARGIN_MS = 600_000

/**
 * Files that keep a new sandbox from giving its results keys that an earlier one of the task has used: keys may lie in the
 * future, where many results had one name, and a POST policy lets an object be overwritten.
 */
export async function takenKeyFiles(
  taskId: string,
  s3: ResultStore,
  { temporaryFolder, signal }: CallOptions & { readonly temporaryFolder: string },
): Promise<readonly SandboxFile[]> {
  const files: SandboxFile[] = []
  const startAfter = `${taskId}/${formatTimestamp(new Date(Date.now() - CLOCK_MARGIN_MS))}`
  try {
    for await (const { key } of s3.list(taskId, { startAfter, signal })) {
      const { timestamp, name } = splitKey(key)
      const token = claimToken(taskId, spoolFileName(timestamp, name))
      files.push({ path: `${temporaryFolder}/${CLAIMS_FOLDER}/${token}`, data: '' })
    }
  } catch (error) {
    // A store that is away takes nothing now either, and must not keep work from starting.
    if (!isConductorError(error)) throw error
  }
  return files
}
