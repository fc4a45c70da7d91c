import { isConductorError } from '../errors.js'
import { RECORD_SUFFIX } from '../protocol/key.js'
import { parseRecord } from '../protocol/parse.js'
import type { ResultRecord } from '../protocol/record.js'
import { keepWatching } from '../sandbox/keep-watching.js'
import type { RemoteSandbox } from '../sandbox/remote-sandbox.js'
import { SandboxFiles } from '../sandbox/sandbox-files.js'

/** Tells of each result as its record appears in the sandbox's spool, until the returned function is called. */
export async function watchResults(
  sandbox: RemoteSandbox,
  localDir: string,
  taskId: string,
  onRecord: (record: ResultRecord) => void,
): Promise<() => Promise<void>> {
  const files = new SandboxFiles(sandbox, localDir)
  const read = async (fileName: string): Promise<void> => {
    try {
      const text = await files.readRecord(taskId, fileName)
      if (text === undefined) return
      const record = parseRecord(text)
      if (record.task_id === taskId) onRecord(record)
    } catch (error) {
      // News only: whatever this misses or cannot read, draining reads again and reports.
      if (!isConductorError(error)) throw error
    }
  }
  return keepWatching(sandbox, `${localDir}/${taskId}`, (name) => {
    if (name.endsWith(RECORD_SUFFIX)) void read(name.slice(0, -RECORD_SUFFIX.length))
  })
}
