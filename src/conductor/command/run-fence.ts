import type { CallOptions } from '../../call-options.js'
import { FENCE_SECONDS, RUN_FILES, WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'

/** Status of a command that did not begin because its number was taken or its worker is being finished; no shell gives it for a signal. */
export const FENCED_STATUS = 199

/** A command of a worker, by its number. */
export interface FencedRun {
  readonly taskId: string
  readonly localDir: string
  readonly runId: string
}

/** In the sandbox itself, also where the spool is a volume: a number is taken once in each. */
function numberPath({ taskId, runId }: FencedRun): string {
  return `/tmp/.worker-run-${taskId}-${runId}`
}

function runFolder({ taskId, localDir, runId }: FencedRun): string {
  return `${workerFolder(localDir, taskId)}/${WORKER_FILES.runs}/${runId}`
}

/** Start of the ids of all fences around a sandbox: those of another may lie beside them on a volume. */
export function fenceIdsOf(sandboxId: string): string {
  return `${sandboxId.replace(/[^A-Za-z0-9]/g, '').slice(0, 60)}-`
}

/** Whether whoever took this number did so for a command, which has begun or is about to. */
export async function hasBegun(
  sandbox: RemoteSandbox,
  run: FencedRun,
  { signal }: CallOptions = {},
): Promise<boolean> {
  return (await sandbox.run(`[ -d ${quote(runFolder(run))} ]`, { cwd: '/', signal })).exitCode === 0
}

/**
 * Bash that comes before a command of a worker, in the shell that becomes its supervisor, whichever of the two that is. Ends
 * where the command must not begin: its number is taken, or a fence stands around the sandbox.
 *
 * Nothing is locked. A command shows itself, with its process, before it looks for a fence; whoever finishes the worker puts up
 * the fence before he looks for commands. In whichever order these four steps come, one sees the other: a command that does not
 * see the fence has been seen, and one that sees it goes. Where both see each other the command goes, and who finishes waits a
 * moment for that.
 */
export function enterRun(run: FencedRun, sandboxId: string): string {
  const [number, folder] = [quote(numberPath(run)), quote(runFolder(run))]
  const pid = quote(`${runFolder(run)}/${RUN_FILES.pid}`)
  const worker = workerFolder(run.localDir, run.taskId)
  const fences = quote(`${worker}/${WORKER_FILES.finishing}${fenceIdsOf(sandboxId)}`)
  // The folder first: who finds the number taken can tell by it whether that was for a command. The same request, come twice, may
  // have removed it again.
  return `mkdir -p ${folder}
if ! mkdir ${number} 2>/dev/null && [ -d ${number} ]; then rmdir ${folder} 2>/dev/null; exit ${FENCED_STATUS}; fi
{ echo $$ >${pid} || { mkdir -p ${folder} && echo $$ >${pid}; }; } 2>/dev/null
stands() {
  local at= up=
  { read -r at <"$1"; read -r up _ </proc/uptime; } 2>/dev/null
  up=\${up%%.*}
  case $at.$up in
    # Being renewed just now, or there was no room for more than its name.
    .* | *. | *[!0-9.]*) [ -n "$(find "$1" -mmin -${FENCE_SECONDS / 60} 2>/dev/null)" ] ;;
    *) [ "$at" -le "$up" ] && [ $((up - at)) -lt ${FENCE_SECONDS} ] ;;
  esac
}
for fence in ${fences}*; do
  if [ -e "$fence" ] && stands "$fence"; then rm -f ${pid}; rmdir ${folder} 2>/dev/null; exit ${FENCED_STATUS}; fi
done`
}
