import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { RECORD_SUFFIX } from '../protocol/key.js'
import { MAX_RECORD_BYTES, MAX_SPOOL_RECORD_BYTES } from '../protocol/parse.js'
import { joinSignals } from '../signals.js'
import { type SpoolRecordFile, tooManyRecords } from '../stores/spool-store.js'
import type { RemoteSandbox } from './remote-sandbox.js'
import { readIfThere } from './sandbox-files.js'
import { withinLimit } from './within-limit.js'

const READS_AT_ONCE = 8
const READ_LIMIT_MS = 30_000

/**
 * Every record of a task's folder that has its bytes beside it, without running anything in the sandbox: its shell and its
 * programs may not be what they were. Takes a request for each record.
 */
export async function readRecordsByFileApi(
  sandbox: RemoteSandbox,
  folder: string,
  { signal }: CallOptions = {},
): Promise<readonly SpoolRecordFile[]> {
  const entries = (await sandbox.listFolder(folder, { signal })) ?? []
  const plain = new Map(entries.filter(({ isPlainFile }) => isPlainFile).map((entry) => [entry.name, entry]))
  const records = [...plain.values()].filter(
    ({ name }) => name.endsWith(RECORD_SUFFIX) && plain.has(name.slice(0, -RECORD_SUFFIX.length)),
  )
  const sizeBytes = records.reduce((sum, record) => sum + Math.min(record.sizeBytes, MAX_RECORD_BYTES), 0)
  if (sizeBytes > MAX_SPOOL_RECORD_BYTES) throw tooManyRecords(`list ${folder} in sandbox ${sandbox.id}`)
  const limit = pLimit(READS_AT_ONCE)
  return Promise.all(
    records.map((record) =>
      limit(async () => {
        const fileName = record.name.slice(0, -RECORD_SUFFIX.length)
        const path = `${folder}/${record.name}`
        const text = await withinLimit(READ_LIMIT_MS, `read ${path}`, (limited) =>
          readIfThere(
            sandbox.openFile(path, {
              signal: joinSignals(limited, signal),
            }),
          ),
        )
        return { fileName, text }
      }),
    ),
  )
}
