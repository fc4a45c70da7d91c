import type { CallOptions } from '../../call-options.js'
import { ConductorError } from '../../errors.js'
import { RUN_FILES, WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { runPlainly } from '../../sandbox/run-plainly.js'
import { FIND_SUPERVISOR } from './inspect.js'

/** A supervisor's log keeps half as much of the start and of the end of each stream; in between it says how much is missing. */
export const LOG_LIMIT_BYTES = 64 << 20
/** So much of the start is in the log while the command runs. */
export const LOG_START_BYTES = LOG_LIMIT_BYTES / 2
/** Of one piece on its way here. */
const PIECE_BYTES = 256 << 10
const LOOK_EVERY_SECONDS = 0.2

/** How far each stream was read, in bytes from the start of the command's output. */
export interface LogOffsets {
  readonly stdout: number
  readonly stderr: number
}

/** Who gets what one stream's log says. */
export interface LogSink {
  /** How far it was read. */
  readonly offset: number
  readonly takeBytes: (bytes: Uint8Array) => void
  /** So many bytes follow that the log did not keep. */
  readonly takeGap: (bytes: number) => void
}

/** Which command's logs, and who gets them, from where on. */
export interface FollowOptions extends CallOptions {
  readonly taskId: string
  readonly runId: string
  readonly localDir: string
  readonly stdout: LogSink
  readonly stderr: LogSink
}

/**
 * Reads what a supervised command printed, from a byte on, to its end, and resolves when the supervisor has ended; nothing is
 * passed twice or left out, but for what the log's limit left out, which the sink is told. Output past the first half of the
 * limit comes only at the end.
 */
export async function followLogs(sandbox: RemoteSandbox, options: FollowOptions): Promise<void> {
  const { taskId, runId, localDir, stdout, stderr, signal } = options
  const sinks: Readonly<Record<string, LogSink>> = { o: stdout, e: stderr }
  let rest = ''
  const take = (text: string): void => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const sink = sinks[line.charAt(0)]
      if (line.charAt(1) === '-') sink?.takeGap(Number(line.slice(2)))
      else sink?.takeBytes(Buffer.from(line.slice(2), 'base64'))
    }
  }
  // Each piece is a line: the stream's letter, and base64, which no decoder on the way can change; a gap is its length in bytes.
  const script = `cd -- ${quote(workerFolder(localDir, taskId))} || exit 9
n=${quote(runId)} half=${LOG_START_BYTES}
cd_run=${WORKER_FILES.runs}/$n
send() { printf '%s ' "$1" && tail -c "+$(($3 + 1))" -- "$2" | head -c "$4" | base64 | tr -d '\\n' && echo; }
# Sends what file $2 has beyond byte $3, but not beyond $4 if given, as stream $1; leaves in at how far that is.
more() {
  at=$3
  [ -f "$2" ] || return 0
  size=$(wc -c <"$2")
  if [ "$size" -gt "\${4:-$size}" ]; then size=$4; fi
  while [ "$size" -gt "$at" ]; do
    piece=$((size - at))
    if [ $piece -gt ${PIECE_BYTES} ]; then piece=${PIECE_BYTES}; fi
    send "$1" "$2" "$at" "$piece"
    at=$((at + piece))
  done
}
# Sends the part that is kept from the end, when all is there: $3 counts in the command's output.
finish() {
  [ -f "$2" ] && [ "$(wc -c <"$2")" -gt $half ] || return 0
  from=$3 skip=$half lost=0
  if [ "$from" -lt $half ]; then from=$half; fi
  mark=$(tail -c "+$((half + 2))" -- "$2" 2>/dev/null | head -n 1 | head -c 100 | tr -d '\\0')
  case $mark in
    '[persist-result: '*' bytes left out]')
      lost=\${mark#*: }
      lost=\${lost%% *}
      case $lost in '' | *[!0-9]* | ????????????????*) lost=0 ;; *) skip=$((half + 2 + \${#mark})) ;; esac
      ;;
  esac
  begin=$((from - half - lost))
  if [ $begin -lt 0 ]; then
    echo "$1-$((-begin))"
    begin=0
  fi
  more "$1" "$2" $((skip + begin))
}
o=${stdout.offset} e=${stderr.offset}
while :; do
  ${FIND_SUPERVISOR}
  more o "$cd_run/${RUN_FILES.stdout}" $o $half && o=$at
  more e "$cd_run/${RUN_FILES.stderr}" $e $half && e=$at
  [ -n "$pid" ] || break
  sleep ${LOOK_EVERY_SECONDS} 2>/dev/null || sleep 1
done
finish o "$cd_run/${RUN_FILES.stdout}" $o
finish e "$cd_run/${RUN_FILES.stderr}" $e
exit 0`
  const { exitCode, stderr: said } = await runPlainly(sandbox, script, { onStdout: take, signal })
  if (exitCode !== 0) {
    throw new ConductorError(
      'COMMAND_FAILED',
      `reading the logs of ${taskId} failed with status ${exitCode}: ${said.trim().slice(-2000)}`,
    )
  }
}
