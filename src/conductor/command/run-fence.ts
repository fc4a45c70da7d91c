import type { CallOptions } from '../../call-options.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'

/** Status of a command that did not begin because somebody else had its number; no shell gives it for a signal. */
export const FENCED_STATUS = 199

/** A command of a worker, by its number. */
export interface FencedRun {
  readonly taskId: string
  readonly localDir: string
  readonly runId: string
}

/** In the sandbox itself, also where the spool is a volume: a number is taken once in each. */
function fencePath({ taskId, runId }: FencedRun): string {
  return `/tmp/.worker-run-${taskId}-${runId}`
}

function runFolder({ taskId, localDir, runId }: FencedRun): string {
  return `${workerFolder(localDir, taskId)}/${WORKER_FILES.runs}/${runId}`
}

/** Whether whoever took this number did so for a command. */
export async function hasBegun(
  sandbox: RemoteSandbox,
  run: FencedRun,
  { signal }: CallOptions = {},
): Promise<boolean> {
  return (await sandbox.run(`[ -d ${quote(runFolder(run))} ]`, { signal })).exitCode === 0
}

/** Shell that takes a command's number before it begins, and ends where that is taken; leaves its folder. */
export function takeRun(run: FencedRun): string {
  const [fence, folder] = [quote(fencePath(run)), quote(runFolder(run))]
  // The folder first: who finds the number taken can tell by it whether that was for a command.
  return `mkdir -p ${folder}
if ! mkdir ${fence} 2>/dev/null && [ -d ${fence} ]; then rmdir ${folder} 2>/dev/null; exit ${FENCED_STATUS}; fi`
}

/**
 * Keeps a command with this number from beginning, whoever may have sent it and died: a request can arrive after that. False
 * when one has begun.
 */
export async function fenceRun(
  sandbox: RemoteSandbox,
  run: FencedRun,
  { signal }: CallOptions = {},
): Promise<boolean> {
  const [fence, folder] = [quote(fencePath(run)), quote(runFolder(run))]
  const script = `if mkdir ${fence} 2>/dev/null || [ ! -d ${fence} ] || [ ! -d ${folder} ]; then echo fenced; fi`
  const { stdout } = await sandbox.run(script, { signal })
  return stdout.includes('fenced')
}
