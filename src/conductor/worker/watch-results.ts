import pLimit from 'p-limit'
import { isConductorError } from '../../errors.js'
import { RECORD_SUFFIX } from '../../protocol/key.js'
import { parseRecord } from '../../protocol/parse.js'
import type { ResultRecord } from '../../protocol/record.js'
import { keepWatching } from '../../sandbox/keep-watching.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { SandboxFiles } from '../../sandbox/sandbox-files.js'
import { withinLimit } from '../../sandbox/within-limit.js'

/** Records of one sandbox that are read side by side, each within a limit: connections are shared with all others. */
const READS_AT_ONCE = 2
const MAX_WAITING = 1000
const READ_LIMIT_MS = 10_000

/** Tells of each result as its record appears in the sandbox's spool, until the returned function is called. */
export async function watchResults(
  sandbox: RemoteSandbox,
  localDir: string,
  taskId: string,
  onRecord: (record: ResultRecord) => void,
): Promise<() => Promise<void>> {
  const files = new SandboxFiles(sandbox, localDir)
  const limit = pLimit(READS_AT_ONCE)
  const read = async (fileName: string): Promise<void> => {
    try {
      const text = await withinLimit(READ_LIMIT_MS, `read the record ${fileName}`, (signal) =>
        files.readRecord(taskId, fileName, { signal }),
      )
      if (text === undefined) return
      const record = parseRecord(text)
      if (record.task_id === taskId) onRecord(record)
    } catch (error) {
      // News only: whatever this misses or cannot read, draining reads again and reports.
      if (!isConductorError(error)) throw error
    }
  }
  return keepWatching(sandbox, `${localDir}/${taskId}`, (name) => {
    if (!name.endsWith(RECORD_SUFFIX) || limit.pendingCount >= MAX_WAITING) return
    void limit(() => read(name.slice(0, -RECORD_SUFFIX.length)))
  })
}
