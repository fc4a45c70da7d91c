import { RECORD_SUFFIX } from '../../protocol/key.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import { quickDrainScript } from './quick-drain.js'
import { toolsAreFit } from './tools.js'

/** What to drain. */
export interface DrainSpec {
  readonly taskId: string
  readonly localDir: string
  readonly outputs: readonly string[]
  readonly cwd: string
  /**
   * Fence under which from then on new results are refused: the sandbox, and its spool with it, is about to go.
   * Undefined where the spool stays.
   */
  readonly seal: string | undefined
}

/** How long a drain waits for another; each of its uploads has a deadline of its own. */
const WAIT_SECONDS = 60
/** How often somebody looks whether a drain gets on. */
const LOOK_SECONDS = 5

/** How a drain is asked for. */
export interface DrainCall {
  /** Nobody's word before it was said: tells what a drain prints from what else a login shell does. */
  readonly mark: string
  /** The program's folder. */
  readonly tools: string
  /** Whether it was just put there. */
  readonly isReplaced: boolean
}

/**
 * Bash that prints, each on a line of its own: the mark and `report`, what a drain printed, the mark, `end` and its status, the
 * file name of each result that then lies in the spool, and the mark. In place of all that the mark and `unfit` where the
 * program is not what it was. It also prints signs of life, to its standard error, as long as the drain gets on.
 *
 * The shell starts in `/`, since the worker may have removed any other folder. What is done without the program is so in the
 * shell's own words: a file of the worker's may have any command's name.
 */
export function drainScript(spec: DrainSpec, { mark, tools, isReplaced }: DrainCall): string {
  const { taskId, localDir, outputs, cwd, seal } = spec
  const lock = `${workerFolder(localDir, taskId)}/${WORKER_FILES.draining}`
  const words = (paths: readonly string[]): string =>
    [
      ...['sh', `${tools}/persist-result`, 'drain', '--json', '--task-id', taskId],
      ...(seal === undefined ? [] : ['--seal', seal]),
      ...paths.flatMap((path) => ['--output', path]),
    ]
      .map(quote)
      .join(' ')
  // Nothing declared is to be stored first, and nothing in the spool is to outlive the sandbox.
  const quick = seal !== undefined && outputs.length === 0 && !isReplaced
  return `mark=${mark}
${quick ? quickDrainScript({ taskId, localDir, seal }) : ''}
${isReplaced ? useOtherTemporaryFolder(spec) : `{ ${toolsAreFit(spec)}; } || { printf '\\n%s unfit\\n' "$mark"; exit 0; }`}
set -m
printf '\\n%s report\\n' "$mark"
{
  ${oneAtATime(lock)}
  # Where its folder is gone, what was declared relative to it is missing, and not something of the same name elsewhere.
  if cd -- ${quote(cwd)} 2>/dev/null; then exec ${words(outputs)}; fi
  exec ${words(outputs.map((path) => resolveOutput(path, cwd)))}
} </dev/null &
job=$!
trap 'kill -KILL -- -"$job" -"$looker" 2>/dev/null; exit 143' TERM
${lookAfter()} >/dev/null </dev/null &
looker=$!
disown "$looker"
wait "$job"
status=$?
kill -KILL -- -"$looker" 2>/dev/null
printf '\\n%s end %s\\n' "$mark" "$status"
for f in ${quote(`${localDir}/${taskId}`)}/*${RECORD_SUFFIX}; do
  name=\${f%${RECORD_SUFFIX}}
  if [ -e "$f" ] && [ -e "$name" ]; then printf '%s\\n' "\${name##*/}"; fi
done
printf '%s\\n' "$mark"`
}

/** A declared output's path that does not depend on where it is asked for. */
export function resolveOutput(path: string, cwd: string): string {
  return path.startsWith('/') ? path : `${cwd}/${path}`
}

/**
 * Shell that goes on when no other does under the same lock. The drain of a conductor that was killed goes on without it,
 * and two at once would each find an output that nobody has stored yet. Where there is no flock, as in a few small images, or
 * one drain takes very long, an output may so be stored under two keys; nothing is lost by that.
 */
export function oneAtATime(lock: string): string {
  const file = quote(lock)
  return `if command -v flock >/dev/null && { : >>${file}; } 2>/dev/null; then
    exec 9>>${file}
    timeout ${WAIT_SECONDS} flock 9 2>/dev/null || :
  fi`
}

/** The program needs a little room for temporary files, and where they belong there may be none. */
function useOtherTemporaryFolder({ taskId, localDir }: DrainSpec): string {
  const other = quote(`${workerFolder(localDir, taskId)}/tmp`)
  const spool = quote(`${localDir}/${taskId}`)
  return `chmod u+rwx -- ${spool} 2>/dev/null
probe=\${TMPDIR:-/tmp}/$mark
{ printf x >"$probe"; } 2>/dev/null || { mkdir -p -- ${other} && export TMPDIR=${other}; }
rm -f -- "$probe"`
}

/** A loop that prints a sign of life for as long as the processes of \`$job\` compute, read or write. */
function lookAfter(): string {
  return `{
  set -f
  before=
  while sleep ${LOOK_SECONDS}; do
    now=
    for pid in $(set +f; cd /proc && printf '%s\\n' [0-9]*); do
      { read -r line <"/proc/$pid/stat"; } 2>/dev/null || continue
      set -- \${line##*) }
      if [ "\${3-}" != "$job" ]; then continue; fi
      now="$now $pid:\${12-}:\${13-}:\${14-}:\${15-}"
      while read -r name value; do
        case $name in rchar: | wchar:) now=$now:$value ;; esac
      done 2>/dev/null <"/proc/$pid/io"
    done
    if [ "$now" != "$before" ]; then printf . >&2; fi
    before=$now
  done
}`
}
