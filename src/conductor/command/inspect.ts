import type { CallOptions } from '../../call-options.js'
import { ConductorError } from '../../errors.js'
import { parseExitRecord, parseWorkerRecord } from '../../protocol/parse.js'
import { type ExitRecord, RUN_FILES, WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import { quote } from '../../sandbox/quote.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { runPlainly } from '../../sandbox/run-plainly.js'
import { NUMBERS } from './run-fence.js'

/** Larger ones are nobody's honest records. */
const MAX_BYTES = 1 << 20
/** Before a supervisor that cannot be found counts as killed. */
const MAX_LOOKS = 5
const LOOK_EVERY_SECONDS = 0.1

/** What a worker's folder says of it to somebody who never saw the worker. */
export interface Inspection {
  /** Undefined when the sandbox was never equipped: nothing ran in it. */
  readonly record: WorkerRecord | undefined
  /** Number of the last command in this sandbox; 0 when none was started. */
  readonly lastRun: number
  /** Supervisor of the last command, while it runs. */
  readonly pid: number | undefined
  /** How the last command ended; undefined while it runs, and when its supervisor was killed before it could say. */
  readonly exit: ExitRecord | undefined
  /** When the last command's supervisor last gave a sign of life. */
  readonly heartbeatAt: Date | undefined
}

/**
 * Shell that leaves the number of the process that supervises run `$n` in `pid`, or of the shell that is about to become it;
 * empty unless it lives: numbers are used again. To be run in the worker's folder. The spool may have had no room for it. While
 * it becomes another program it has no command line, but a program, which neither a dead process nor one of the kernel's own has.
 */
export const FIND_SUPERVISOR = `pid=$(head -c 20 "runs/$n/${RUN_FILES.pid}" 2>/dev/null)
if [ -z "$pid" ]; then pid=$(head -c 20 "${NUMBERS}\${PWD##*/}-$n/${RUN_FILES.pid}" 2>/dev/null); fi
case $pid in '' | *[!0-9]*) pid= ;; esac
if [ -n "$pid" ]; then
  case $(tr '\\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in
    *" run --run-id $n "* | *" 'run' '--run-id' '$n' "*) ;;
    '') [ -e "/proc/$pid/exe" ] || pid= ;;
    *) pid= ;;
  esac
fi`

/** Asks a running sandbox where its worker stands: one command. */
export async function inspectWorker(
  sandbox: RemoteSandbox,
  { taskId, localDir }: { readonly taskId: string; readonly localDir: string },
  { signal }: CallOptions = {},
): Promise<Inspection> {
  const script = `cd -- ${quote(workerFolder(localDir, taskId))} 2>/dev/null || exit 0
b() { if [ -f "$1" ] && [ ! -L "$1" ]; then head -c ${MAX_BYTES} -- "$1" | base64 | tr -d '\\n'; fi; }
# Whether run $n is of this sandbox: on a volume lie those of earlier ones.
is_own() {
  by=
  { read -r by <"runs/$n/${RUN_FILES.sandbox}"; } 2>/dev/null
  case $by in
    ${quote(sandbox.id)}) return 0 ;;
    '') [ -d "${NUMBERS}\${PWD##*/}-$n" ] && return 0 ;;
  esac
  ${FIND_SUPERVISOR}
  [ -n "$pid" ]
}
echo "record $(b ${WORKER_FILES.worker})"
last=0
for d in ${WORKER_FILES.runs}/*/; do
  r=\${d#*/}
  r=\${r%/}
  case $r in '' | 0* | *[!0-9]* | ?????????*) continue ;; esac
  n=$r
  if [ "$r" -gt "$last" ] && is_own; then last=$r; fi
done
n=$last
echo "run $n"
# Its folder is there a moment before its number.
looks=0
while :; do
  ${FIND_SUPERVISOR}
  if [ "$n" = 0 ] || [ -n "$pid" ] || [ -e "runs/$n/${RUN_FILES.exit}" ] || [ $looks -ge ${MAX_LOOKS} ]; then break; fi
  looks=$((looks + 1))
  sleep ${LOOK_EVERY_SECONDS} 2>/dev/null || sleep 1
done
echo "pid $pid"
echo "exit $(b "runs/$n/${RUN_FILES.exit}")"
echo "heartbeat $(date -r "runs/$n/${RUN_FILES.heartbeat}" +%s 2>/dev/null)"`
  const { exitCode, stdout, stderr } = await runPlainly(sandbox, script, { signal })
  if (exitCode !== 0) {
    throw new ConductorError(
      'COMMAND_FAILED',
      `inspecting ${taskId} failed with status ${exitCode}: ${stderr.trim().slice(-2000)}`,
    )
  }
  const said = new Map(
    stdout.split('\n').map((line) => {
      const [word = '', value = ''] = line.split(' ', 2)
      return [word, value] as const
    }),
  )
  const text = (name: string): string => Buffer.from(said.get(name) ?? '', 'base64').toString('utf8')
  const number = (name: string): number | undefined => {
    const value = said.get(name) ?? ''
    return /^\d{1,15}$/.test(value) ? Number(value) : undefined
  }
  const heartbeat = number('heartbeat')
  return {
    record: text('record') === '' ? undefined : parseWorkerRecord(taskId, text('record')),
    lastRun: number('run') ?? 0,
    pid: number('pid'),
    exit: text('exit') === '' ? undefined : parseExitRecord(text('exit')),
    heartbeatAt: heartbeat === undefined ? undefined : new Date(heartbeat * 1000),
  }
}
