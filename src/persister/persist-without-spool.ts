import { fstatSync } from 'node:fs'
import { access, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { ConductorError, isConductorError } from '../errors.js'
import { withOpen } from '../files/disk.js'
import { nextTimestamp } from '../protocol/key.js'
import type { ResultRecord } from '../protocol/record.js'
import { MEMORY_FOLDER, spoolFileName } from '../protocol/spool-layout.js'
import type { Courier, Requirement } from './courier.js'
import type { DeliveryContext } from './remote/remote-store.js'
import type { Settings } from './settings.js'
import type { Source } from './source/source.js'
import { claimElsewhere, noteElsewhere } from './spool/claims-elsewhere.js'
import { type Draft, makeRecord } from './spool/commit.js'
import { taskFolder } from './spool/record-file.js'
import { type Body, digestFile, SpoolFailure, stageBody } from './spool/stage.js'

const MAX_MOVES = 3600

/** A body that lies outside the spool until a remote tier has it. */
interface Borrowed {
  readonly body: Body
  /** Whether its bytes still are those that were hashed. */
  unchanged(): Promise<boolean>
  discard(): Promise<void>
}

async function borrowFile(path: string): Promise<Borrowed> {
  const digest = (): ReturnType<typeof digestFile> =>
    withOpen(path, (file) => digestFile({ file, sizeBytes: fstatSync(file).size }))
  const before = await digest()
  return {
    body: { path, ...before },
    unchanged: async () => (await digest()).sha256 === before.sha256,
    discard: async () => {},
  }
}

async function stageElsewhere(source: Source): Promise<Borrowed | undefined> {
  for (const parent of new Set([tmpdir(), MEMORY_FOLDER])) {
    let folder: string
    try {
      folder = await mkdtemp(`${parent}/persist-result-`)
    } catch {
      // Not writable or not there: the next place may be.
      continue
    }
    const discard = (): Promise<void> => rm(folder, { recursive: true, force: true })
    try {
      const body = await stageBody(folder, source.read())
      source.sealing?.staged(body)
      return { body, unchanged: async () => true, discard }
    } catch (error) {
      await discard()
      if (!(error instanceof SpoolFailure)) throw error
    }
  }
  return undefined
}

/** False when the spool or another such process on this machine has the key. */
async function claim(settings: Settings, draft: Draft, timestamp: string): Promise<boolean> {
  const file = spoolFileName(timestamp, draft.name)
  // Asked last, so that of a result in the spool and this one, side by side, one gives way.
  if (!claimElsewhere(draft.taskId, file)) return false
  return access(`${taskFolder(settings.localDir, draft.taskId)}/${file}`).then(
    () => false,
    () => true,
  )
}

function allFailed(spoolFailure: ConductorError, record: ResultRecord | undefined): ConductorError {
  const remote = Object.entries(record?.errors ?? {}).map(([tier, error]) => `${tier}: ${error.message}`)
  const why = [`local: ${spoolFailure.message}`, ...remote]
  if (remote.length === 0) why.push('no remote storage took it')
  return new ConductorError(spoolFailure.code, `All storage methods failed: ${why.join('; ')}`, {
    cause: spoolFailure,
  })
}

/** How a result is stored without a spool. */
export interface WithoutSpool {
  readonly requirement?: Requirement
  readonly context?: DeliveryContext
  /** Digest of the content that is stored already: the same is not stored again. */
  readonly unless?: string | undefined
}

/**
 * For a spool that cannot be written (full, read-only): the result counts as stored only if a remote tier takes it now.
 * A file is sent from where it is; anything else from a temporary folder. Resolves `undefined` only for what `unless` says.
 */
export async function persistWithoutSpool(
  settings: Settings,
  courier: Courier,
  draft: Draft,
  source: Source,
  spoolFailure: ConductorError,
  { requirement, context = {}, unless }: WithoutSpool = {},
): Promise<ResultRecord | undefined> {
  if (!source.repeatable || !(await courier.hasRemote())) throw allFailed(spoolFailure, undefined)
  settings.warn(`Local storage failed: ${spoolFailure.message}`)
  const borrowed = source.path === undefined ? await stageElsewhere(source) : await borrowFile(source.path)
  if (borrowed === undefined) throw allFailed(spoolFailure, undefined)
  try {
    if ((source.sealing?.sha256() ?? borrowed.body.sha256) === unless) return undefined
    let timestamp = draft.timestamp
    for (let moves = 0; moves < MAX_MOVES; moves++, timestamp = nextTimestamp(timestamp)) {
      if (!(await claim(settings, draft, timestamp))) continue
      const record = makeRecord(draft, borrowed.body, timestamp)
      let delivered: ResultRecord
      try {
        delivered = await courier.deliver(record, borrowed.body, requirement, context)
      } catch (error) {
        if (isConductorError(error) && error.code === 'EXISTS') continue
        throw error
      }
      if (delivered.stored.length === 0 || !(await borrowed.unchanged()))
        throw allFailed(spoolFailure, delivered)
      noteElsewhere(delivered)
      return delivered
    }
    throw allFailed(spoolFailure, undefined)
  } finally {
    await borrowed.discard()
  }
}
