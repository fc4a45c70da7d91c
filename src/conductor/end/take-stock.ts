import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { DrainReport } from '../../protocol/drain.js'
import { compareKeys } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { readRecordsByFileApi } from '../../sandbox/spool-by-file-api.js'
import { readOwnRecord } from '../../stores/spool-store.js'
import { drainSandbox } from './drain.js'
import { type DrainSpec, resolveOutput } from './drain-script.js'

/** How long a drain may go without getting on before it counts as stuck, */
const QUIET_MS = 120_000
/** and where its sandbox goes in any case, */
const FORCED_QUIET_MS = 20_000
/** and how long it may then take in all. */
const FORCED_LIMIT_MS = 60_000

/** What a sandbox was found to hold. */
export interface Stock {
  readonly report: DrainReport
  /** Whether what a conductor puts there was changed or removed: results may have been, too. */
  readonly isSpoiled: boolean
}

/** How stock is taken. */
export interface TakeStockOptions extends CallOptions {
  /** Whether the sandbox goes in any case, and soon. */
  readonly force: boolean
}

/**
 * Seals the spool and finds out what it holds: by the sandbox's own program, by that program once more where it was spoiled, and
 * by reading files where nothing runs there any more. Rejects with what went wrong at first when even that cannot be done.
 */
export async function takeStock(
  sandbox: RemoteSandbox,
  spec: DrainSpec,
  { force, signal }: TakeStockOptions,
): Promise<Stock> {
  const bounds = force ? { quietMs: FORCED_QUIET_MS, limitMs: FORCED_LIMIT_MS } : { quietMs: QUIET_MS }
  let problem: ConductorError | undefined
  for (const repair of [false, true]) {
    try {
      const drain = { repair, bounds, signal }
      const { report, unreported } = await drainSandbox(sandbox, spec, drain)
      if (unreported.length === 0) return { report, isSpoiled: repair }
      // A program that passes over a result may be another's; what is no result is passed over here as well.
      return { report: merge(report, await readSpool(sandbox, spec, { signal })), isSpoiled: true }
    } catch (error) {
      signal?.throwIfAborted()
      if (!isConductorError(error) || isBeyondRepair(error, force)) throw error
      problem ??= error
      // What was stuck once may be so again, and there is no time for that.
      if (force && error.code === 'TIMEOUT') break
    }
  }
  try {
    const report = await salvage(sandbox, spec, problem as ConductorError, { force, signal })
    return { report, isSpoiled: true }
  } catch (error) {
    signal?.throwIfAborted()
    if (!isConductorError(error) || isBeyondRepair(error, force)) throw error
    throw problem
  }
}

/** Whether it says of the sandbox that nothing can be done about what runs there. */
function isBeyondRepair({ code, retryable }: ConductorError, force: boolean): boolean {
  if (code === 'SANDBOX_GONE' || code === 'SANDBOX_PAUSED') return true
  return code === 'UNAVAILABLE' && retryable && !force
}

async function salvage(
  sandbox: RemoteSandbox,
  spec: DrainSpec,
  problem: ConductorError,
  { force, signal }: TakeStockOptions,
): Promise<DrainReport> {
  const { taskId, localDir, outputs, cwd, seal } = spec
  if (seal !== undefined) {
    const path = `${workerFolder(localDir, taskId)}/${WORKER_FILES.sealed}${seal}`
    try {
      await sandbox.writeFiles([{ path, data: '' }], { signal })
    } catch (error) {
      // Without it a result may be acknowledged that is in no list.
      if (!force || !isConductorError(error)) throw error
    }
  }
  const records = await readSpool(sandbox, spec, { signal })
  const reports: DrainReport['outputs'][number][] = []
  for (const path of outputs) {
    const isThere = await sandbox.exists(resolveOutput(path, cwd), { signal })
    const error = isThere ? `nothing runs in its sandbox that could store it: ${problem.message}` : null
    reports.push({
      path,
      status: isThere ? 'failed' : 'missing',
      key: null,
      error: error?.slice(0, 2000) ?? null,
    })
  }
  // Nobody but the sandbox can archive a folder; it is not for this to give up what was asked for.
  const left = reports.filter(({ status }) => status === 'failed').map(({ path }) => path)
  if (left.length > 0 && !force) {
    throw new ConductorError(
      'COMMAND_FAILED',
      `${problem.message}; the sandbox was left alive with declared outputs that nothing there can store (${left.slice(0, 5).join(', ')}), use force: true to give them up`,
      { cause: problem },
    )
  }
  return { v: 1, outputs: reports, records }
}

/** Its records, in key order; what is malformed or lies under another's name is passed over. */
async function readSpool(
  sandbox: RemoteSandbox,
  { taskId, localDir }: DrainSpec,
  options: CallOptions,
): Promise<readonly ResultRecord[]> {
  const files = await readRecordsByFileApi(sandbox, `${localDir}/${taskId}`, options)
  return files
    .flatMap(({ fileName, text }) =>
      text === undefined ? [] : (readOwnRecord(taskId, fileName, text) ?? []),
    )
    .sort((a, b) => compareKeys(a.key, b.key))
}

function merge(report: DrainReport, found: readonly ResultRecord[]): DrainReport {
  const byKey = new Map([...found, ...report.records].map((record) => [record.key, record]))
  const records = [...byKey.values()].sort((a, b) => compareKeys(a.key, b.key))
  return { ...report, records }
}
