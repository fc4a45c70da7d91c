import { ConductorError, isConductorError } from '../errors.js'
import { removeFile } from '../files/disk.js'
import { makeFolder } from '../files/durable-file.js'
import { isSealedType } from '../protocol/encryption/sealed-type.js'
import { ARCHIVE_SUFFIX, assertName, assertTaskId, formatTimestamp } from '../protocol/key.js'
import type { JsonObject, ResultRecord } from '../protocol/record.js'
import { Courier, type Requirement } from './courier.js'
import { catchUp, deliverCommitted } from './deliver.js'
import { readKeyFile } from './encryption/key-file.js'
import type { DeliveryContext } from './remote/remote-store.js'
import type { Settings } from './settings.js'
import { contentTypeOf, contentTypeProblem } from './source/content-type.js'
import type { Source } from './source/source.js'
import { type Committed, commit, type Draft } from './spool/commit.js'
import { taskFolder } from './spool/record-file.js'
import { assertOwnTask, assertUnsealed } from './spool/seal.js'
import { digestFile, SpoolFailure, type Staged, stageBody } from './spool/stage.js'

/** What the caller says about a result. */
export interface Description {
  readonly taskId: string
  readonly name: string | undefined
  readonly metadata: JsonObject
  readonly contentType: string | undefined
}

/** The task to act for: the one asked for, else the worker's own. */
export function resolveTaskId(asked: string | undefined, settings: Settings): string {
  const taskId = asked ?? settings.env.workerId
  if (taskId === undefined) {
    throw new ConductorError('INVALID_OPTION', 'no task id: give --task-id (taskId) or set WORKER_ID')
  }
  assertTaskId(taskId)
  return taskId
}

function archiveName(name: string): string {
  return name.endsWith(ARCHIVE_SUFFIX) ? name : `${name}${ARCHIVE_SUFFIX}`
}

/** Checks a description against its source before anything is read or written. */
function makeDraft(source: Source, description: Description): Draft {
  const given = description.name ?? source.defaultName
  if (given === undefined) throw new ConductorError('INVALID_OPTION', 'content without a path needs a name')
  assertName(given)
  const name = source.archive === null ? given : archiveName(given)
  assertName(name)
  const contentType = description.contentType ?? contentTypeOf(name, source.fallbackType)
  const problem = contentTypeProblem(contentType)
  if (problem !== undefined) throw new ConductorError('INVALID_OPTION', `content type ${problem}`)
  if (isSealedType(contentType)) {
    throw new ConductorError('INVALID_OPTION', 'content type is that of results that were encrypted here')
  }
  const createdAt = new Date()
  return {
    taskId: description.taskId,
    name,
    createdAt,
    timestamp: formatTimestamp(createdAt),
    contentType,
    metadata: description.metadata,
    archive: source.archive,
  }
}

/** What goes into the spool: a source as it is, or encrypted where the environment or the conductor says so. */
export async function prepare(
  settings: Settings,
  source: Source,
  description: Description,
): Promise<{ readonly draft: Draft; readonly source: Source }> {
  const draft = makeDraft(source, description)
  const encryptionKey = settings.env.encryptionKey ?? readKeyFile(settings.localDir, draft.taskId)
  if (encryptionKey === undefined) return { draft, source }
  const { sealSource } = await import('./encryption/seal-source.js')
  return sealSource(encryptionKey, draft, source)
}

async function stage(settings: Settings, draft: Draft, source: Source): Promise<Staged> {
  const folder = taskFolder(settings.localDir, draft.taskId)
  try {
    await makeFolder(folder)
  } catch (error) {
    throw new SpoolFailure(error, folder)
  }
  const staged = await stageBody(folder, source.read())
  source.sealing?.staged(staged)
  return staged
}

/**
 * Stores a source in the spool unless it has the bytes of `latest`; `undefined` then. Rejects with {@link SpoolFailure}
 * when the spool cannot be written.
 */
export async function storeIfChanged(
  settings: Settings,
  draft: Draft,
  source: Source,
  latest: ResultRecord | undefined,
): Promise<Committed | undefined> {
  const before = source.sealing === undefined || latest === undefined ? latest : source.sealing.recall(latest)
  const content = source.sealing?.content ?? source
  const body = content.read()
  if (before !== undefined && 'file' in body && content.sizeBytes === before.size) {
    // Costs one reading, where a copy of a big file would need its room on the disk.
    if ((await digestFile(body)).sha256 === before.sha256) return undefined
  }
  const staged = await stage(settings, draft, source)
  if ((source.sealing?.sha256() ?? staged.sha256) === before?.sha256) {
    removeFile(staged.path)
    return undefined
  }
  return await commit(settings.localDir, draft, staged)
}

/**
 * Stores a source: in the spool first, then remotely. Resolves with the record once the result is safe somewhere; whether
 * a remote tier has it, the record says. The source stays the caller's to close.
 */
export async function persist(
  settings: Settings,
  given: Source,
  description: Description,
  requirement: Requirement,
  context: DeliveryContext,
): Promise<ResultRecord> {
  const { draft, source } = await prepare(settings, given, description)
  const courier = new Courier(settings, draft.taskId)
  let committed: Committed
  try {
    const staged = await stage(settings, draft, source)
    courier.prepare()
    committed = await commit(settings.localDir, draft, staged)
  } catch (error) {
    if (!(error instanceof SpoolFailure)) throw error
    const { persistWithoutSpool } = await import('./persist-without-spool.js')
    const how = { requirement, context }
    const record = await persistWithoutSpool(settings, courier, draft, source, error.cause, how)
    assertUnsealedIfReadable(settings, draft.taskId)
    return record as ResultRecord
  } finally {
    for (const line of source.warnings()) settings.warn(line)
  }
  try {
    assertUnsealed(settings.localDir, draft.taskId)
  } catch (error) {
    committed.marker.release()
    throw error
  }
  const record = await deliverCommitted(settings, courier, committed, requirement, context)
  // Under another key it is another record, which was written later.
  if (record.key !== committed.record.key) assertUnsealed(settings.localDir, draft.taskId)
  if (record.stored.length > 0) await catchUp(settings, courier, draft.taskId)
  else assertOwnTask(settings.localDir, draft.taskId, settings.env.workerId)
  return record
}

/** For a spool that could not be written: one that cannot be read either nobody can take for sealed. */
function assertUnsealedIfReadable({ localDir }: Settings, taskId: string): void {
  try {
    assertUnsealed(localDir, taskId)
  } catch (error) {
    if (isConductorError(error)) throw error
  }
}
