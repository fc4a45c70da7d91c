import type { CallOptions } from '../../call-options.js'
import {
  FENCE_SECONDS,
  RUN_FILES,
  type RunPlace,
  runFolder,
  WORKER_FILES,
  workerFolder,
} from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { runPlainly } from '../../sandbox/run-plainly.js'

/** Status of a command that did not begin because its number was taken or its worker is being finished; no shell gives it for a signal. */
export const FENCED_STATUS = 199
/** Status of one whose number somebody else took, for a command of theirs. */
export const TAKEN_STATUS = 197
/** How long whoever takes a number may be about to say for which start. */
const MAX_LOOKS = 20

/** One request, or several of the same, to begin a command. */
export interface RunStart extends RunPlace {
  /** Nobody else's. */
  readonly startId: string
}

/** Start of the path of a folder for each number that was taken in a sandbox, also where the spool is a volume: once in each. */
export const NUMBERS = '/tmp/.worker-run-'

function numberPath({ taskId, runId }: RunPlace): string {
  return `${NUMBERS}${taskId}-${runId}`
}

function startPath(run: RunStart): string {
  return `${numberPath(run)}/by-${run.startId}`
}

/** Start of the ids of all fences around a sandbox: those of another may lie beside them on a volume. */
export function fenceIdsOf(sandboxId: string): string {
  return `${sandboxId.replace(/[^A-Za-z0-9]/g, '').slice(0, 60)}-`
}

/** Whether whoever took this number did so for a command, which has begun or is about to. */
export async function hasBegun(
  sandbox: RemoteSandbox,
  run: RunPlace,
  { signal }: CallOptions = {},
): Promise<boolean> {
  return (await runPlainly(sandbox, `[ -d ${quote(runFolder(run))} ]`, { signal })).exitCode === 0
}

/** Whether somebody else took the number. */
export async function isTaken(
  sandbox: RemoteSandbox,
  run: RunStart,
  { signal }: CallOptions = {},
): Promise<boolean> {
  const script = `${findTaker(run)}; false`
  return (await runPlainly(sandbox, script, { signal })).exitCode === TAKEN_STATUS
}

/** Shell that ends where somebody else took the number. */
function findTaker(run: RunStart): string {
  const [number, start] = [numberPath(run), startPath(run)].map(quote)
  return `for by in ${number}/by-*; do if [ -e "$by" ] && [ ! -e ${start} ]; then exit ${TAKEN_STATUS}; fi; done`
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
export function enterRun(run: RunStart, sandboxId: string): string {
  const [number, folder, start] = [numberPath(run), runFolder(run), startPath(run)].map(quote)
  const [pid, owner] = [RUN_FILES.pid, RUN_FILES.sandbox].map((name) => quote(`${runFolder(run)}/${name}`))
  const worker = workerFolder(run.localDir, run.taskId)
  const fences = quote(`${worker}/${WORKER_FILES.finishing}${fenceIdsOf(sandboxId)}`)
  // The folder first: who finds the number taken can tell by it whether that was for a command. The same request, come twice, may
  // have removed it again. What is in it when the number was free is of an earlier sandbox with the same volume.
  return `mkdir -p ${folder}
if ! mkdir ${number} 2>/dev/null && [ -d ${number} ]; then
  rmdir ${folder} 2>/dev/null
  looks=0
  while [ ! -e ${start} ] && [ $looks -lt ${MAX_LOOKS} ]; do
    ${findTaker(run)}
    looks=$((looks + 1))
    sleep 0.1 2>/dev/null || sleep 1
  done
  exit ${FENCED_STATUS}
fi
{ : >${start}; } 2>/dev/null
by=
{ read -r by <${owner}; } 2>/dev/null
if [ "$by" = ${quote(sandboxId)} ]; then exit ${FENCED_STATUS}; fi
for file in ${folder}/*; do if [ -e "$file" ]; then rm -rf -- ${folder}/*; fi; break; done
{ echo $$ >${pid} || { mkdir -p ${folder} && echo $$ >${pid}; }; } 2>/dev/null
{ echo $$ >${number}/${RUN_FILES.pid}; echo ${quote(sandboxId)} >${owner}; } 2>/dev/null
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
  if [ -e "$fence" ] && stands "$fence"; then rm -f ${pid} ${owner}; rmdir ${folder} 2>/dev/null; exit ${FENCED_STATUS}; fi
done`
}
