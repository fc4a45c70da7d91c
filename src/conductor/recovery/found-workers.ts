import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { WorkerGrant } from '../../grants/worker-grant.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import type { RemoteSandbox, SandboxSummary } from '../../sandbox/remote-sandbox.js'
import { type Inspection, inspectWorker } from '../command/inspect.js'
import { LEASE_MS } from '../lease.js'
import type { Means } from '../means.js'
import { OpenIntent } from '../open-intent.js'
import { placesOf, type TaskPlaces } from '../places.js'
import { identityOf, isRecordOf, type SandboxIdentity } from '../sandbox-metadata.js'
import { grantEnd, issueGrant } from '../worker/issue-grant.js'
import { Worker, type WorkerParts } from '../worker/worker.js'
import { trustedRecord } from './trusted-record.js'

/** A sandbox of ours that runs, and where its worker stands. */
export interface FoundWorker {
  readonly sandbox: RemoteSandbox
  readonly places: TaskPlaces
  readonly identity: SandboxIdentity
  readonly inspection: Inspection
}

/** A found sandbox in which a conductor has put its tools. */
export type EquippedWorker = FoundWorker & {
  readonly inspection: { readonly record: WorkerRecord }
}

/** Whether there is a worker to go on with. */
export function isEquipped(found: FoundWorker): found is EquippedWorker {
  return found.inspection.record !== undefined
}

/** Finds out what is in sandboxes that somebody else made, and takes their workers over. */
export class FoundWorkers {
  readonly #means: Means

  constructor(means: Means) {
    this.#means = means
  }

  /** Wakes a sandbox if it is paused, and asks where its worker stands. */
  async find(summary: SandboxSummary, { signal }: CallOptions = {}): Promise<FoundWorker> {
    const identity = identityOf(summary)
    if (identity === undefined) {
      throw new ConductorError('INVALID_OPTION', `sandbox ${summary.id} was not made by a conductor`)
    }
    const { options, s3, lookup } = this.#means
    const sandbox = await lookup.sandboxes.connect(summary.id, LEASE_MS, { signal })
    const places = placesOf(identity, options, s3)
    const inspection = await inspectWorker(
      sandbox,
      { taskId: identity.taskId, localDir: identity.localDir },
      { signal },
    )
    const { record } = inspection
    if (record === undefined || !isRecordOf(identity, record)) {
      return { sandbox, places, identity, inspection: { ...inspection, record: undefined } }
    }
    const trusted = await trustedRecord(record, identity, places, { signal })
    return { sandbox, places, identity, inspection: { ...inspection, record: trusted } }
  }

  /** Makes a worker of a sandbox that was found; its command goes on, and its grant is kept good. */
  async takeOver(
    { sandbox, places, identity, inspection }: EquippedWorker,
    { signal, onClosed }: CallOptions & Pick<WorkerParts, 'onClosed'>,
  ): Promise<Worker> {
    const { record } = inspection
    const endsAtMs = Date.parse(record.deadline_at)
    // One that slept past its own time is woken for a lease, in which it is stopped and stores what it has.
    const isLate = endsAtMs <= Date.now()
    const expiresAt = grantEnd(isLate ? Date.now() + LEASE_MS : endsAtMs)
    const { taskId, spawnId, conductorId, attempt, localDir, access } = identity
    const heir = { taskId, localDir, access, inherited: true }
    const { options, granter } = this.#means
    const grant = await issueGrant(options, granter, heir, expiresAt, { signal })
    // Any other that it has is as good, and lasts as long.
    if (grant?.endsEarly || (isLate && grant !== undefined)) await install(grant, sandbox, { signal })
    const { created_at } = record
    const begun = {
      v: 1,
      task_id: taskId,
      spawn_id: spawnId,
      conductor: conductorId,
      attempt,
      created_at,
      volume: places.volume,
    } as const
    const { intents } = places
    const intent = intents === undefined ? undefined : new OpenIntent(intents, begun, { etag: undefined })
    const worker = new Worker({ sandbox, record, places, grant, intent, onClosed, found: inspection })
    await grant?.serve(sandbox, (event) => worker.emit('grant', event))
    return worker
  }
}

/** A sandbox that takes no new grant, such as one whose disk is full, goes on with the one it has. */
async function install(grant: WorkerGrant, sandbox: RemoteSandbox, options: CallOptions): Promise<void> {
  try {
    await grant.install(sandbox, options)
  } catch (error) {
    // What it then cannot deliver itself, the conductor carries.
    if (!isConductorError(error) || error.code === 'SANDBOX_GONE' || error.code === 'SANDBOX_PAUSED')
      throw error
  }
}
