import {
  RUN_FILES,
  type RunPlace,
  runFolder,
  WORKER_FILES,
  workerFolder,
} from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import { LOG_LIMIT_BYTES } from './follow-log.js'
import { noteKills } from './memory-kills.js'
import { streamMark } from './output-stream.js'
import { enterRun, type RunStart } from './run-fence.js'

/** One shell command, and what becomes of it at its end. */
export interface ShellCommand extends RunPlace {
  readonly command: string
  /** Persisted by the supervisor when the command ends. */
  readonly outputs: readonly string[]
  /** Between SIGTERM and SIGKILL when it is stopped. */
  readonly graceMs: number
}

/** Bash that becomes the command's supervisor, where the command may begin; see {@link enterRun} for where it may not. */
export function commandLine(start: ShellCommand & RunStart, sandboxId: string): string {
  const folder = workerFolder(start.localDir, start.taskId)
  const bin = `${folder}/${WORKER_FILES.bin}`
  const words = [
    'sh',
    `${bin}/persist-result`,
    'run',
    '--run-id',
    start.runId,
    '--task-id',
    start.taskId,
    '--grace',
    `${Math.max(1, start.graceMs)}ms`,
    '--log-limit',
    String(LOG_LIMIT_BYTES),
    ...start.outputs.flatMap((path) => ['--output', path]),
    '--',
    '/bin/bash',
    '-c',
    start.command,
  ]
  // E2B writes files as 0644: the tools must be executable, and the grant is nobody else's business.
  const modes = `chmod 755 ${quote(bin)}/*; chmod 600 ${quote(`${folder}/${WORKER_FILES.grant}`)} 2>/dev/null; chmod 700 ${quote(`${folder}/broker`)} 2>/dev/null`
  const before = noteKills(`${runFolder(start)}/${RUN_FILES.before}`)
  const text = quote(streamMark(start.startId))
  const mark = `printf ${text}; printf ${text} >&2`
  return `${enterRun(start, sandboxId)}
${modes}; ${before}; ${mark}; exec ${words.map(quote).join(' ')}`
}
