import { randomBytes } from 'node:crypto'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import type { Granter } from '../grants/granter.js'
import type { WorkerGrant } from '../grants/worker-grant.js'
import type { Intent } from '../protocol/intent.js'
import type { WorkerRecord } from '../protocol/worker-record.js'
import { E2bSandboxes } from '../sandbox/e2b-sandboxes.js'
import type { RemoteSandbox, SandboxSummary } from '../sandbox/remote-sandbox.js'
import { S3Intents } from '../stores/s3/s3-intents.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import type { AttemptParts } from './attempt.js'
import { insist } from './back-off.js'
import { type Claim, claimTask, noteTask } from './claim-task.js'
import { discard, Equipper } from './equipper.js'
import { type Inspection, inspectWorker } from './inspect.js'
import { LEASE_MS } from './lease.js'
import type { Access, ResolvedOptions } from './options.js'
import { placesOf, type TaskPlaces } from './places.js'
import { grantEnd, issueGrant } from './provision.js'
import type { RenewOptions, Repetition } from './retrier.js'
import { identityOf, METADATA } from './sandbox-metadata.js'
import { sealVanished } from './seal-vanished.js'
import type { ResolvedSpawn } from './spawn-options.js'
import { Worker, type WorkerParts } from './worker.js'

/** A sandbox of ours that runs, and where its worker stands. */
export interface FoundWorker {
  readonly sandbox: RemoteSandbox
  readonly places: TaskPlaces
  readonly access: Access
  readonly inspection: Inspection
}

/** Makes workers: new ones in new sandboxes, and ones for sandboxes that somebody else made. */
export class WorkerFactory {
  readonly sandboxes: E2bSandboxes
  readonly #options: ResolvedOptions
  readonly #s3: S3Location | undefined
  readonly #granter: Granter
  readonly #equipper: Equipper

  constructor(options: ResolvedOptions, s3: S3Location | undefined, granter: Granter) {
    this.#options = options
    this.#s3 = s3
    this.#granter = granter
    this.sandboxes = new E2bSandboxes(options.e2b)
    this.#equipper = new Equipper(options, s3, granter, this.sandboxes)
  }

  /** Where a task's results lie, as far as the conductor's own settings say. */
  placesOf(taskId: string, volume = this.#options.volume): TaskPlaces {
    return placesOf({ taskId, volume }, this.#options, this.#s3)
  }

  /** Who has which task's worker, where there is a place to say so. */
  get intents(): S3Intents | undefined {
    return this.#s3 === undefined ? undefined : new S3Intents(this.#s3)
  }

  /** Sandboxes of a task, whoever made them, the oldest first. */
  async findSandboxes(taskId: string, { signal }: CallOptions = {}): Promise<SandboxSummary[]> {
    const found: SandboxSummary[] = []
    for await (const summary of this.sandboxes.list({ [METADATA.task]: taskId }, { signal })) {
      if (identityOf(summary) !== undefined) found.push(summary)
    }
    return found.sort((a, b) => a.startedAt.getTime() - b.startedAt.getTime())
  }

  /** Creates a sandbox, equips it and starts its command; undone when that fails. Resolves with the task's sandboxes when it has some. */
  async spawn(
    spawn: ResolvedSpawn,
    isNamed: boolean,
    { signal, onClosed }: { readonly signal: AbortSignal; readonly onClosed: WorkerParts['onClosed'] },
  ): Promise<Worker | readonly SandboxSummary[]> {
    signal.throwIfAborted()
    const places = this.placesOf(spawn.taskId, spawn.volume)
    const spawnId = newSpawnId()
    // Nobody else can know a name that was made up here.
    const claim = isNamed
      ? await this.#claim(spawn, { spawnId, places, signal })
      : this.#note(spawn.taskId, spawnId, places)
    if (claim !== undefined && !('release' in claim)) return claim
    try {
      for (let left = spawn.retries.lost; ; left--) {
        try {
          return await this.#bringUp({ spawn, spawnId, places, claim, signal, onClosed })
        } catch (error) {
          // Nothing of the command has been seen yet, so that this sandbox counts for none.
          if (left === 0 || !isGone(error)) throw error
        }
      }
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'UNDELIVERED') await claim?.release()
      throw error
    }
  }

  /** Wakes a sandbox if it is paused, and asks where its worker stands. */
  async find(summary: SandboxSummary, { signal }: CallOptions = {}): Promise<FoundWorker> {
    const identity = identityOf(summary)
    if (identity === undefined) {
      throw new ConductorError('INVALID_OPTION', `sandbox ${summary.id} was not made by a conductor`)
    }
    const sandbox = await this.sandboxes.connect(summary.id, LEASE_MS, { signal })
    const places = placesOf(identity, this.#options, this.#s3)
    const inspection = await inspectWorker(
      sandbox,
      { taskId: identity.taskId, localDir: identity.localDir },
      { signal },
    )
    return { sandbox, places, access: identity.access, inspection }
  }

  /** Makes a worker of a sandbox that was found; its command goes on, and its grant is kept good. */
  async takeOver(
    { sandbox, places, access, inspection }: FoundWorker,
    record: WorkerRecord,
    { signal, onClosed }: CallOptions & Pick<WorkerParts, 'onClosed'>,
  ): Promise<Worker> {
    const endsAtMs = Date.parse(record.deadline_at)
    // One that slept past its own time is woken for a lease, in which it is stopped and stores what it has.
    const isLate = endsAtMs <= Date.now()
    const expiresAt = grantEnd(isLate ? Date.now() + LEASE_MS : endsAtMs)
    const { localDir } = places
    const identity = { taskId: record.task_id, localDir, access, inherited: true }
    const grant = await issueGrant(this.#options, this.#granter, identity, expiresAt, { signal })
    // Any other that it has is as good, and lasts as long.
    if (grant?.endsEarly || (isLate && grant !== undefined)) await install(grant, sandbox, { signal })
    const worker = new Worker({ sandbox, record, places, grant, onClosed, found: inspection })
    await grant?.serve(sandbox, (event) => worker.emit('grant', event))
    return worker
  }

  async #claim(
    { taskId, ifExists }: ResolvedSpawn,
    wanted: {
      readonly spawnId: string
      readonly places: TaskPlaces
      /** The lost sandbox that this one is to follow. */
      readonly previous?: WorkerRecord | undefined
      readonly signal: AbortSignal
    },
  ): Promise<Claim | readonly SandboxSummary[] | undefined> {
    const { spawnId, previous, signal } = wanted
    const { manifests, intents } = wanted.places
    const findSandboxes = (): Promise<SandboxSummary[]> => this.findSandboxes(taskId, { signal })
    const askE2b = async (): Promise<SandboxSummary[] | undefined> => {
      const found = await findSandboxes()
      return found.length > 0 ? found : undefined
    }
    if (intents === undefined || manifests === undefined) return askE2b()
    try {
      return await claimTask({
        intent: this.#intentOf(taskId, spawnId),
        intents,
        manifests,
        findSandboxes,
        waits: previous === undefined && ifExists === 'attach',
        previous,
        bury: (vanished) => buryVanished(vanished, { ...wanted.places, manifests }, { signal }),
        signal,
      })
    } catch (error) {
      if (!isConductorError(error) || error.code === 'EXISTS') throw error
      // A store that is down or closed to us must not keep work from starting: what E2B knows has to do.
      return askE2b()
    }
  }

  #note(taskId: string, spawnId: string, { intents }: TaskPlaces): Claim | undefined {
    if (intents === undefined) return undefined
    return noteTask({ intent: this.#intentOf(taskId, spawnId), intents })
  }

  #intentOf(taskId: string, spawnId: string): Intent {
    const created_at = new Date().toISOString()
    return { v: 1, task_id: taskId, spawn_id: spawnId, conductor: this.#options.id, created_at }
  }

  async #bringUp(spawning: Spawning & Pick<WorkerParts, 'onClosed'>): Promise<Worker> {
    const { spawn, spawnId, places, claim, signal, onClosed } = spawning
    const { command, outputs } = spawn
    const attempt = claim?.attempt ?? 1
    const confirm = async (): Promise<void> => claim?.confirm()
    const parts = await this.#equipper.equip({ spawn, spawnId, places, attempt, confirm, signal })
    const { sandbox, grant } = parts
    let isUp = false
    const worker = new Worker({
      ...parts,
      places,
      intentEtag: claim?.etag,
      onClosed: (lateSeals) => isUp && onClosed(lateSeals),
    })
    const repetition = this.#repetitionOf(spawning)
    const launch = async (): Promise<void> => {
      if (command !== undefined) await worker.launch(command, { outputs }, repetition)
    }
    const launched = launch()
    try {
      await Promise.all([grant?.serve(sandbox, (event) => worker.emit('grant', event)), launched])
      signal.throwIfAborted()
      isUp = true
      return worker
    } catch (error) {
      const [start] = await Promise.allSettled([launched])
      worker.tellAll()
      const mayRun =
        start.status === 'fulfilled' || (isConductorError(start.reason) && start.reason.retryable)
      // Nobody heard of it, but it may have heard that a result is safe.
      if (command !== undefined && mayRun && !isGone(error)) await withdraw(worker, error)
      else {
        await worker.detach()
        await discard(sandbox, error)
      }
      throw error
    }
  }

  /** Holds on to what the worker was made from only where that may be wanted again. */
  #repetitionOf(spawning: Spawning): Repetition | undefined {
    const times = spawning.spawn.retries.lost
    return times === 0 ? undefined : { times, renew: (options) => this.#renew(spawning, options) }
  }

  /** The next sandbox of a worker whose last one was lost. */
  async #renew(
    { spawn, places }: Spawning,
    { previous, endsAt, onGrant, signal }: RenewOptions,
  ): Promise<AttemptParts> {
    const spawnId = newSpawnId()
    const claim = await this.#claim(spawn, { spawnId, places, previous, signal })
    if (claim !== undefined && !('release' in claim)) {
      throw new ConductorError('EXISTS', `task ${spawn.taskId} has a worker in sandbox ${claim[0]?.id}`)
    }
    try {
      const attempt = claim?.attempt ?? previous.attempt + 1
      const confirm = async (): Promise<void> => claim?.confirm()
      const parts = await this.#equipper.equip({ spawn, spawnId, places, attempt, endsAt, confirm, signal })
      try {
        await parts.grant?.serve(parts.sandbox, onGrant)
        signal.throwIfAborted()
        return { ...parts, intentEtag: claim?.etag }
      } catch (error) {
        await parts.grant?.end()
        await discard(parts.sandbox, error)
        throw error
      }
    } catch (error) {
      await claim?.release()
      throw error
    }
  }
}

/** What a worker is being made from. */
interface Spawning {
  readonly spawn: ResolvedSpawn
  readonly spawnId: string
  readonly places: TaskPlaces
  readonly claim: Claim | undefined
  readonly signal: AbortSignal
}

function newSpawnId(): string {
  return randomBytes(8).toString('hex')
}

/** Ends a worker whose command may have begun, with all that it has acknowledged by then; where that cannot be done it lives on. */
async function withdraw(worker: Worker, because: unknown): Promise<void> {
  try {
    await insist(() => worker.terminate())
  } catch (error) {
    await worker.detach()
    throw new ConductorError(
      'UNDELIVERED',
      `task ${worker.taskId} was given up as it began; its sandbox ${worker.sandboxId} is left to recover()`,
      { cause: new AggregateError([because, error]) },
    )
  }
}

function isGone(error: unknown): boolean {
  return isConductorError(error) && error.code === 'SANDBOX_GONE'
}

/** Writes down the end of a worker that was missed; a new one of the task does not wait for that to go well. */
async function buryVanished(...vanished: Parameters<typeof sealVanished>): Promise<void> {
  try {
    await sealVanished(...vanished)
  } catch (error) {
    // What it had delivered is the task's all the same; only whose it was is not said.
    if (!isConductorError(error)) throw error
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
