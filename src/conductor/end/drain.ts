import type { CallOptions } from '../../call-options.js'
import { ConductorError } from '../../errors.js'
import type { DrainReport } from '../../protocol/drain.js'
import { parseDrainReport } from '../../protocol/parse.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { CommandOutcome, RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { isQuickDrain, parseQuickDrain, quickDrainScript } from './quick-drain.js'

/** How long a drain waits for another; each of its uploads has a deadline of its own. */
const WAIT_SECONDS = 60

/** What to drain. */
export interface DrainSpec {
  readonly taskId: string
  readonly localDir: string
  readonly outputs: readonly string[]
  readonly cwd: string
  /**
   * Fence under which from then on is refused what only the spool would have: the sandbox, and its spool with it, is about to go.
   * Undefined where the spool stays.
   */
  readonly seal: string | undefined
}

/** Has the sandbox persist its declared outputs, deliver what is pending, and tell all it holds: one command. */
export async function drainSandbox(
  sandbox: RemoteSandbox,
  spec: DrainSpec,
  options: CallOptions = {},
): Promise<DrainReport> {
  const program = `${workerFolder(spec.localDir, spec.taskId)}/${WORKER_FILES.bin}/persist-result`
  const words = [
    'sh',
    program,
    'drain',
    '--json',
    '--task-id',
    spec.taskId,
    ...(spec.seal === undefined ? [] : ['--seal', spec.seal]),
    ...spec.outputs.flatMap((path) => ['--output', path]),
  ]
  const lock = `${workerFolder(spec.localDir, spec.taskId)}/${WORKER_FILES.draining}`
  const full = oneAtATime(lock, words.map(quote).join(' '))
  const run = (script: string): Promise<CommandOutcome> =>
    sandbox.run(script, { cwd: spec.cwd, signal: options.signal })
  // Nothing declared is to be stored first, and nothing in the spool is to outlive the sandbox.
  const { seal } = spec
  const mayBeQuick = seal !== undefined && spec.outputs.length === 0
  let outcome = await run(mayBeQuick ? `${quickDrainScript({ ...spec, seal })}\n${full}` : full)
  if (mayBeQuick && isQuickDrain(outcome.stdout)) {
    const report = parseQuickDrain(outcome.stdout)
    if (report !== undefined) return onlyOf(spec.taskId, report)
    outcome = await run(full)
  }
  const { exitCode, stdout, stderr } = outcome
  if (exitCode !== 0) {
    throw new ConductorError(
      'COMMAND_FAILED',
      `draining ${spec.taskId} failed with status ${exitCode}: ${stderr.trim().slice(-2000)}`,
    )
  }
  return onlyOf(spec.taskId, parseDrainReport(stdout))
}

/** The sandbox's word about another task is worth nothing. */
function onlyOf(taskId: string, report: DrainReport): DrainReport {
  return { ...report, records: report.records.filter(({ task_id }) => task_id === taskId) }
}

/**
 * Shell that runs a command when no other runs under the same lock. The drain of a conductor that was killed goes on without it,
 * and two at once would each find an output that nobody has stored yet. Where there is no flock, as in a few small images, or
 * one drain takes very long, an output may so be stored under two keys; nothing is lost by that.
 */
function oneAtATime(lock: string, command: string): string {
  const file = quote(lock)
  return `if command -v flock >/dev/null && { : >>${file}; } 2>/dev/null; then
  exec 9>>${file}
  timeout ${WAIT_SECONDS} flock 9 2>/dev/null || :
fi
exec ${command}`
}
