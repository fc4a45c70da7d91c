import { isConductorError } from '../errors.js'
import type { DrainReport, OutputReport } from '../protocol/drain.js'
import { compareKeys } from '../protocol/key.js'
import type { ResultRecord } from '../protocol/record.js'
import { Courier } from './courier.js'
import { flushTask } from './deliver.js'
import { describeError } from './fs-error.js'
import { prepare, storeIfChanged } from './persist.js'
import { persistWithoutSpool } from './persist-without-spool.js'
import type { Settings } from './settings.js'
import { openPath } from './source/path-source.js'
import type { Source } from './source/source.js'
import { listElsewhere } from './spool/claims-elsewhere.js'
import type { Draft } from './spool/commit.js'
import { listSpool } from './spool/scan.js'
import { sealSpool } from './spool/seal.js'
import { SpoolFailure } from './spool/stage.js'

/** The newest result of a name; records come in key order, so that is the last. */
export function latestNamed(records: readonly ResultRecord[], name: string): ResultRecord | undefined {
  return records.findLast((record) => record.name === name)
}

/** An output to be stored if it changed. */
export interface Output {
  readonly path: string
  /** @default the path's last segment */
  readonly name?: string | undefined
  /** Finds the result to compare with, by name. */
  readonly latest: (name: string) => ResultRecord | undefined
}

/** What became of an output; `record` is present when it was stored now. */
export interface StoredOutput {
  readonly report: OutputReport
  readonly record?: ResultRecord
}

/** Stores one output in the spool unless its latest result has the same bytes; never rejects. */
export async function storeOutput(
  settings: Settings,
  courier: Courier,
  taskId: string,
  { path, name, latest }: Output,
): Promise<StoredOutput> {
  try {
    const content = await openPath(path)
    try {
      const description = { taskId, name, metadata: {}, contentType: undefined }
      const { draft, source } = await prepare(settings, content, description)
      const before = latest(draft.name)
      const record = await storeDraft(settings, courier, draft, source, before)
      const status = record === undefined ? 'unchanged' : 'stored'
      const report = { path, status, key: (record ?? before)?.key ?? null, error: null } as const
      return record === undefined ? { report } : { report, record }
    } finally {
      for (const line of content.warnings()) settings.warn(line)
      await content.close()
    }
  } catch (error) {
    const missing = isConductorError(error) && error.code === 'NOT_FOUND'
    const why = missing ? null : describeError(error).slice(0, 2000)
    return { report: { path, status: missing ? 'missing' : 'failed', key: null, error: why } }
  }
}

async function storeDraft(
  settings: Settings,
  courier: Courier,
  draft: Draft,
  source: Source,
  before: ResultRecord | undefined,
): Promise<ResultRecord | undefined> {
  try {
    const committed = await storeIfChanged(settings, draft, source, before)
    committed?.marker.release()
    return committed?.record
  } catch (error) {
    if (!(error instanceof SpoolFailure)) throw error
    const unless = before && (source.sealing === undefined ? before : source.sealing.recall(before))?.sha256
    return await persistWithoutSpool(settings, courier, draft, source, error.cause, { unless })
  }
}

/** Stores outputs that changed, delivers what is pending, and says what there is; with `seal`, for as long as that fence stands. */
export async function drain(
  settings: Settings,
  taskId: string,
  outputs: readonly string[],
  seal: string | undefined,
): Promise<DrainReport> {
  const courier = new Courier(settings, taskId)
  const before = await takeStock(settings, taskId)
  const reports: OutputReport[] = []
  // All are safe in the spool before the first is sent: whoever asks for a drain may be about to end the sandbox.
  const latest = (name: string): ResultRecord | undefined => latestNamed(before, name)
  for (const path of outputs) {
    reports.push((await storeOutput(settings, courier, taskId, { path, latest })).report)
  }
  await flushTask(settings, courier, taskId, undefined, {})
  if (seal !== undefined) sealSpool(settings.localDir, taskId, seal)
  return { v: 1, outputs: reports, records: await takeStock(settings, taskId) }
}

/** Every result of the task, in key order, also those that the spool had no room for. */
async function takeStock({ localDir }: Settings, taskId: string): Promise<ResultRecord[]> {
  const records = [...listElsewhere(taskId), ...(await listSpool(localDir, taskId))]
  return records.sort((a, b) => compareKeys(a.key, b.key))
}
