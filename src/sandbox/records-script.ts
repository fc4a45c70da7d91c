import { RECORD_SUFFIX } from '../protocol/key.js'
import { MAX_RECORD_BYTES, MAX_SPOOL_RECORD_BYTES } from '../protocol/parse.js'
import type { SpoolRecordFile } from '../stores/spool-store.js'
import { quote } from './quote.js'

/** What is printed at the very end: without it, what came before may lack anything. */
const END = 'E'

/**
 * A shell script that prints every record of a folder, in as many processes for one as for thousands: `N` and a file's name, then
 * `T` and each of its lines. A plain line for each file follows, so that whoever reads this knows which records have their bytes;
 * since these are written first, listing them last misses none.
 *
 * Only plain files whose names are one line are looked at. Of those that are larger than any honest record nothing is printed,
 * and a file that goes away meanwhile is passed over.
 */
export function recordsScript(folder: string): string {
  const plainFiles = `find . ! -name . -prune -type f ! -name "*$nl*"`
  return `cd -- ${quote(folder)} 2>/dev/null || { echo ${END}; exit; }
nl='
'
{
  ${plainFiles} -name '*${RECORD_SUFFIX}' -size -${MAX_RECORD_BYTES + 1}c -print |
    LC_ALL=C awk '{
      print "N" $0
      while ((getline line < $0) > 0) print "T" line
      close($0)
    }' &&
  { ${plainFiles} -print || [ $? = 1 ]; } && echo ${END}
} | head -c ${MAX_SPOOL_RECORD_BYTES + 1}`
}

/** The records that {@link recordsScript} printed and that have their bytes beside them; undefined when it did not get to its end. */
export function parseRecords(printed: string): SpoolRecordFile[] | undefined {
  const files = new Set<string>()
  const records: { readonly fileName: string; readonly lines: string[] }[] = []
  const all = printed.split('\n')
  if (all.pop() !== '' || all.pop() !== END) return undefined
  for (const line of all) {
    // Names begin with "./".
    const rest = line.slice(1)
    if (line.startsWith('.')) files.add(rest.slice(1))
    else if (line.startsWith('N')) records.push({ fileName: rest.slice(2, -RECORD_SUFFIX.length), lines: [] })
    else if (line.startsWith('T')) records.at(-1)?.lines.push(rest)
  }
  return records.flatMap(({ fileName, lines }) => {
    if (!files.has(fileName)) return []
    const text = lines.join('\n')
    return [{ fileName, text: text.length > MAX_RECORD_BYTES ? undefined : text }]
  })
}
