import type { CallOptions } from '../../call-options.js'
import { ConductorError } from '../../errors.js'
import { RUN_FILES, WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { FIND_SUPERVISOR } from './inspect.js'

/** A supervisor's log keeps this much of the start and of the end of each stream; in between it says how much is missing. */
export const LOG_LIMIT_BYTES = 64 << 20
const HALF_BYTES = LOG_LIMIT_BYTES / 2
/** Of one piece on its way here. */
const PIECE_BYTES = 256 << 10
const LOOK_EVERY_SECONDS = 0.2

/** How far each stream was read, in bytes from the start of the command's output. */
export interface LogOffsets {
  readonly stdout: number
  readonly stderr: number
}

/** Which command's logs, from where on, and who gets them. */
export interface FollowOptions extends CallOptions {
  readonly taskId: string
  readonly runId: string
  readonly localDir: string
  readonly from: LogOffsets
  readonly onStdout: (bytes: Uint8Array) => void
  readonly onStderr: (bytes: Uint8Array) => void
}

/**
 * Reads what a supervised command printed, from a byte on, to its end, and resolves when the supervisor has ended; nothing is
 * passed twice or left out, but for what the log's limit left out, which a line then tells. Output past the first half of the
 * limit comes only at the end.
 */
export async function followLogs(sandbox: RemoteSandbox, options: FollowOptions): Promise<void> {
  const { taskId, runId, localDir, from, onStdout, onStderr, signal } = options
  const sinks: Readonly<Record<string, (bytes: Uint8Array) => void>> = { o: onStdout, e: onStderr }
  let rest = ''
  const take = (text: string): void => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) sinks[line.charAt(0)]?.(Buffer.from(line.slice(2), 'base64'))
  }
  // Each piece is a line: the stream's letter, and base64, which no decoder on the way can change.
  const script = `cd -- ${quote(workerFolder(localDir, taskId))} || exit 9
n=${quote(runId)} half=${HALF_BYTES}
cd_run=${WORKER_FILES.runs}/$n
send() { printf '%s ' "$1" && tail -c "+$(($3 + 1))" -- "$2" | head -c "$4" | base64 | tr -d '\\n' && echo; }
# Sends what file $2 has beyond byte $3 as stream $1; leaves in at how far that is.
more() {
  at=$3
  [ -f "$2" ] || return 0
  size=$(wc -c <"$2")
  while [ "$size" -gt "$at" ]; do
    piece=$((size - at))
    if [ $piece -gt ${PIECE_BYTES} ]; then piece=${PIECE_BYTES}; fi
    send "$1" "$2" "$at" "$piece"
    at=$((at + piece))
  done
}
# The same for a reader who was already past the part that is kept from the start: $3 counts in the command's output.
finish() {
  skip=$half lost=0
  mark=$(tail -c "+$((half + 2))" -- "$2" 2>/dev/null | head -n 1 | head -c 100 | tr -d '\\0')
  case $mark in
    '[persist-result: '*' bytes left out]')
      lost=\${mark#*: }
      lost=\${lost%% *}
      skip=$((half + 2 + \${#mark}))
      ;;
  esac
  begin=$(($3 - half - lost))
  if [ $begin -lt 0 ]; then
    printf '%s ' "$1"
    printf '\\n[persist-result: %s bytes left out]\\n' $((-begin)) | base64 | tr -d '\\n'
    echo
    begin=0
  fi
  more "$1" "$2" $((skip + begin))
}
o=${from.stdout} e=${from.stderr} o_past= e_past=
if [ $o -gt $half ]; then o_past=1; fi
if [ $e -gt $half ]; then e_past=1; fi
while :; do
  ${FIND_SUPERVISOR}
  if [ -z "$o_past" ]; then more o "$cd_run/${RUN_FILES.stdout}" $o && o=$at; fi
  if [ -z "$e_past" ]; then more e "$cd_run/${RUN_FILES.stderr}" $e && e=$at; fi
  [ -n "$pid" ] || break
  sleep ${LOOK_EVERY_SECONDS} 2>/dev/null || sleep 1
done
if [ -n "$o_past" ]; then finish o "$cd_run/${RUN_FILES.stdout}" $o; fi
if [ -n "$e_past" ]; then finish e "$cd_run/${RUN_FILES.stderr}" $e; fi
exit 0`
  const { exitCode, stderr } = await sandbox.run(script, { onStdout: take, signal })
  if (exitCode !== 0) {
    throw new ConductorError(
      'COMMAND_FAILED',
      `reading the logs of ${taskId} failed with status ${exitCode}: ${stderr.trim().slice(-2000)}`,
    )
  }
}
