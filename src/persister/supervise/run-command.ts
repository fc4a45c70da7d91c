import { randomBytes } from 'node:crypto'
import { formatTimestamp, nameProblem } from '../../protocol/key.js'
import { RUN_FILES, runFolder } from '../../protocol/spool-layout.js'
import { parseOptions, usageError } from '../cli/arguments.js'
import { remark } from '../cli/output.js'
import { resolveTaskId } from '../persist.js'
import { readSettings } from '../settings.js'
import { Checkpoints } from './checkpoints.js'
import { childEnvironment, keepGrant } from './child-environment.js'
import { parseDurationMs } from './duration.js'
import { Keeper, type Keepsake } from './keeper.js'
import { SignalRelay } from './signal-relay.js'
import { statusOf, supervise } from './supervise.js'

const DEFAULT_LOG_LIMIT_BYTES = 16 << 20

interface RunRequest {
  readonly command: readonly string[]
  readonly taskId: string | undefined
  readonly runId: string
  readonly outputs: readonly Keepsake[]
  readonly checkpoints: readonly Keepsake[]
  readonly everyMs: number
  readonly log: boolean
  readonly logLimitBytes: number
  /** Undefined when a command that ignores SIGTERM is left alone. */
  readonly graceMs: number | undefined
}

function parseRun(argv: readonly string[]): RunRequest {
  const dashes = argv.indexOf('--')
  const command = dashes < 0 ? [] : argv.slice(dashes + 1)
  if (command.length === 0) throw usageError('run needs a command after --')
  const { values } = parseOptions({
    args: argv.slice(0, dashes),
    options: {
      'task-id': { type: 'string', short: 't' },
      'run-id': { type: 'string' },
      output: { type: 'string', short: 'o', multiple: true },
      name: { type: 'string', short: 'n' },
      checkpoint: { type: 'string', multiple: true },
      every: { type: 'string' },
      log: { type: 'boolean' },
      'log-limit': { type: 'string' },
      grace: { type: 'string' },
    },
  })
  const outputs = values.output ?? []
  if (values.name !== undefined && outputs.length !== 1) throw usageError('--name goes with one --output')
  const everyMs = parseDurationMs(values.every ?? '60s')
  if (everyMs === undefined) throw usageError(`--every must be a duration such as 60s, not "${values.every}"`)
  const logLimitBytes = Number(values['log-limit'] ?? DEFAULT_LOG_LIMIT_BYTES)
  if (!Number.isSafeInteger(logLimitBytes) || logLimitBytes < 2)
    throw usageError('--log-limit must be a number of bytes')
  const graceMs = values.grace === undefined ? undefined : parseDurationMs(values.grace)
  if (values.grace !== undefined && graceMs === undefined) {
    throw usageError(`--grace must be a duration such as 10s, not "${values.grace}"`)
  }
  const runId = values['run-id'] ?? `${formatTimestamp(new Date())}-${randomBytes(3).toString('hex')}`
  const problem = nameProblem(runId)
  if (problem !== undefined) throw usageError(`--run-id ${problem}`)
  return {
    command,
    taskId: values['task-id'],
    runId,
    outputs: outputs.map((path) => ({ path, name: values.name })),
    checkpoints: (values.checkpoint ?? []).map((path) => ({ path })),
    everyMs,
    log: values.log === true,
    logLimitBytes,
    graceMs,
  }
}

/** `persist-result run`: gives the command's own exit status, whatever becomes of its results. */
export async function runCommand(argv: readonly string[]): Promise<number> {
  const request = parseRun(argv)
  // From the first moment on: a signal that comes before the command does must not be lost.
  const signals = new SignalRelay(request.graceMs)
  const settings = readSettings(process.env, remark)
  const taskId = resolveTaskId(request.taskId, settings)
  const folder = runFolder({ localDir: settings.localDir, taskId, runId: request.runId })
  await keepGrant(settings, taskId)
  const keeper = new Keeper(settings, taskId)
  const checkpoints = new Checkpoints(keeper, request.checkpoints, request.everyMs)
  const end = await supervise({
    command: request.command,
    env: childEnvironment(settings, taskId),
    taskId,
    runId: request.runId,
    folder,
    logLimitBytes: request.logLimitBytes,
    signals,
    warn: settings.warn,
  })
  await checkpoints.stop()
  const logs = [RUN_FILES.stdout, RUN_FILES.stderr].map((name) => ({ path: `${folder}/${name}`, name }))
  const things = [...request.checkpoints, ...request.outputs, ...(request.log ? logs : [])]
  if (things.length > 0) await keeper.keep(things, 'missing')
  return statusOf(end)
}
