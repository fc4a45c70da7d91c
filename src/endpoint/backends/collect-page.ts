import type { ResultRecord } from '../../protocol/record.js'
import type { PageOptions, RecordPage } from './endpoint-backend.js'

/** Records read at once. */
const CONCURRENT_READS = 16

/** Bounds of a page; `complete` says that nothing follows the entries given. */
interface PageBounds extends Omit<PageOptions, 'after'> {
  readonly complete: boolean
}

/** Reads the records of sorted entries until a page is full; what has no record is passed over. */
export async function collectPage<Entry extends { readonly key: string }>(
  entries: readonly Entry[],
  { complete, limit, maxBytes, signal }: PageBounds,
  read: (entry: Entry) => Promise<ResultRecord | undefined>,
): Promise<RecordPage> {
  const records: ResultRecord[] = []
  let sizeBytes = 0
  for (let start = 0; start < entries.length; start += CONCURRENT_READS) {
    signal?.throwIfAborted()
    const some = entries.slice(start, start + CONCURRENT_READS)
    const found = await Promise.all(some.map(read))
    for (const [i, entry] of some.entries()) {
      const record = found[i]
      if (record === undefined) continue
      records.push(record)
      sizeBytes += Buffer.byteLength(JSON.stringify(record))
      const last = start + i + 1 === entries.length
      if (!last && (records.length >= limit || sizeBytes >= maxBytes)) return { records, next: entry.key }
    }
  }
  return { records, next: complete ? undefined : entries.at(-1)?.key }
}
