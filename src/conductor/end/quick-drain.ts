import { isConductorError } from '../../errors.js'
import type { DrainReport } from '../../protocol/drain.js'
import { compareKeys, RECORD_SUFFIX } from '../../protocol/key.js'
import { parseDrainReport } from '../../protocol/parse.js'
import {
  CLAIMS_FOLDER,
  MEMORY_FOLDER,
  SPOOL_FOLDERS,
  WORKER_FILES,
  workerFolder,
} from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'

/** Honest records are far smaller, and more of them are as well read by the program. */
const MAX_RECORD_CHARS = 65_536
const MAX_RECORDS = 64

/** Whose spool. */
export interface QuickDrainSpec {
  readonly taskId: string
  readonly localDir: string
  /** Fence under which to seal. */
  readonly seal: string
}

/**
 * Bash that seals a spool and prints the report of a drain, between `$mark` and `quick` and `$mark`, where there is nothing to do: every result is noted as stored remotely,
 * none is marked as pending, and none lies outside the spool. It then ends the shell; in any other case it falls through, for the
 * program to find out. Without a single process of its own, since most drains are like that.
 *
 * As in the program the seal comes before the list. It speaks to processes that are alive, and so need not survive a crash.
 */
export function quickDrainScript({ taskId, localDir, seal }: QuickDrainSpec): string {
  const worker = workerFolder(localDir, taskId)
  const suffix = RECORD_SUFFIX
  return `quick() {
  local f name text n=0 all=
  # What cannot be looked into may hold anything.
  for f in "$spool" "$spool"/${SPOOL_FOLDERS.pending} "$spool"/${SPOOL_FOLDERS.uploads}; do
    if [ -e "$f" ] || [ -L "$f" ] || [ "$f" = "$spool" ]; then [ -d "$f" ] && [ -r "$f" ] && [ -x "$f" ] || return 1; fi
  done
  for f in "$spool"/${SPOOL_FOLDERS.pending}/* "$spool"/${SPOOL_FOLDERS.uploads}/*; do
    if [ -e "$f" ] || [ -L "$f" ]; then return 1; fi
  done
  for f in "\${TMPDIR:-\${TMP:-\${TEMP:-/tmp}}}" ${MEMORY_FOLDER}; do
    if [ -e "$f/${CLAIMS_FOLDER}" ]; then return 1; fi
  done
  for f in "$spool"/*${suffix}; do
    if [ ! -e "$f" ] && [ ! -L "$f" ]; then break; fi
    name=\${f##*/} name=\${name%${suffix}} text= n=$((n + 1))
    [ $n -le ${MAX_RECORDS} ] && [ -f "$f" ] && [ -f "$spool/$name" ] || return 1
    IFS= read -r -d '' -n ${MAX_RECORD_CHARS} text <"$f"
    case $text in *'"stored":[]'*) return 1 ;; esac
    case $text in *"\\"key\\":\\"$task/$name\\""*) ;; *) return 1 ;; esac
    all=$all\${all:+,}$text
  done
  report="{\\"v\\":1,\\"outputs\\":[],\\"records\\":[$all]}"
}
task=${quote(taskId)} spool=${quote(`${localDir}/${taskId}`)}
if { quick && [ -e ${quote(`${worker}/${WORKER_FILES.finishing}${seal}`)} ] && : >${quote(`${worker}/${WORKER_FILES.sealed}${seal}`)} && quick; } 2>/dev/null; then
  printf '\\n%s quick\\n%s\\n%s\\n' "$mark" "$report" "$mark"
  exit 0
fi`
}

/** Whether a quick drain printed this, and not the program. */
export function isQuickDrain(printed: string, mark: string): boolean {
  return printed.includes(`\n${mark} quick\n`)
}

/** The report of a quick drain, in key order; undefined when it holds what is no record, which the program passes over. */
export function parseQuickDrain(printed: string, mark: string): DrainReport | undefined {
  const begin = `\n${mark} quick\n`
  const from = printed.indexOf(begin) + begin.length
  try {
    const report = parseDrainReport(printed.slice(from, printed.indexOf(`\n${mark}\n`, from)))
    return { ...report, records: report.records.toSorted((a, b) => compareKeys(a.key, b.key)) }
  } catch (error) {
    if (!isConductorError(error) || error.code !== 'PROTOCOL') throw error
    return undefined
  }
}
