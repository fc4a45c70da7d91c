import { randomBytes } from 'node:crypto'
import type { CallOptions } from '../../call-options.js'
import { ConductorError } from '../../errors.js'
import type { DrainReport, OutputReport } from '../../protocol/drain.js'
import { MAX_SPOOL_RECORD_BYTES, parseDrainReport } from '../../protocol/parse.js'
import { spoolFileName } from '../../protocol/spool-layout.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { NO_PROFILE, type RunBounds, runBounded } from '../../sandbox/run-bounded.js'
import { type DrainSpec, drainScript, resolveOutput } from './drain-script.js'
import { isQuickDrain, parseQuickDrain } from './quick-drain.js'
import { replaceTools, toolsFolder } from './tools.js'

/** What a drain came to. */
export interface DrainOutcome {
  readonly report: DrainReport
  /** File names of results that lie in the spool and that the report does not tell of. */
  readonly unreported: readonly string[]
}

/** How a drain is run. */
export interface DrainOptions extends CallOptions {
  /** Has the program put there again first, and none of the worker's login files read. */
  readonly repair: boolean
  /** How long it may go without getting on, and how long in all. */
  readonly bounds: Omit<RunBounds, 'maxBytes'>
}

/** Has the sandbox persist its declared outputs, deliver what is pending, and tell all it holds: one command. */
export async function drainSandbox(
  sandbox: RemoteSandbox,
  spec: DrainSpec,
  { repair, bounds, signal }: DrainOptions,
): Promise<DrainOutcome> {
  const mark = randomBytes(16).toString('hex')
  const tools = repair ? await replaceTools(sandbox, spec, { signal }) : toolsFolder(spec)
  const script = drainScript(spec, { mark, tools, isReplaced: repair })
  const { stdout, stderr, exitCode } = await runBounded(
    sandbox,
    script,
    { ...bounds, maxBytes: MAX_SPOOL_RECORD_BYTES },
    { cwd: '/', signal, ...(repair ? { envs: NO_PROFILE } : {}) },
  )
  if (isQuickDrain(stdout, mark)) {
    const report = parseQuickDrain(stdout, mark)
    if (report !== undefined) return { report: onlyOf(spec, report), unreported: [] }
  }
  const [, body, status, names] =
    new RegExp(`^${mark} report\\n([^]*?)\\n${mark} end (\\d+)\\n([^]*?)^${mark}$`, 'm').exec(stdout) ?? []
  if (body === undefined || status !== '0') {
    const why = stdout.includes(`\n${mark} unfit`)
      ? 'its tools were removed or changed'
      : `status ${status ?? exitCode}: ${stderr.trim().slice(-2000)}`
    throw new ConductorError('COMMAND_FAILED', `draining ${spec.taskId} failed: ${why}`)
  }
  const report = onlyOf(spec, parseDrainReport(body))
  const told = new Set(report.records.map(({ timestamp, name }) => spoolFileName(timestamp, name)))
  const lying = (names ?? '').split('\n').filter((name) => name !== '')
  return { report, unreported: lying.filter((name) => !told.has(name)) }
}

/** The sandbox's word about another task is worth nothing, and what it says nothing of is not as good as stored. */
export function onlyOf({ taskId, outputs, cwd }: DrainSpec, report: DrainReport): DrainReport {
  const said = new Map(report.outputs.map((output) => [resolveOutput(output.path, cwd), output]))
  return {
    ...report,
    outputs: outputs.map((path): OutputReport => {
      const output = said.get(resolveOutput(path, cwd))
      if (output !== undefined) return { ...output, path }
      return { path, status: 'failed', key: null, error: 'the sandbox did not say what became of it' }
    }),
    records: report.records.filter(({ task_id }) => task_id === taskId),
  }
}
