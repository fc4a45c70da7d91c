import { randomBytes } from 'node:crypto'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { type EgressRules, egressRules } from '../grants/egress.js'
import type { Granter } from '../grants/granter.js'
import type { WorkerGrant } from '../grants/worker-grant.js'
import type { WorkerRecord } from '../protocol/worker-record.js'
import { E2bSandboxes } from '../sandbox/e2b-sandboxes.js'
import { ensureVolume } from '../sandbox/e2b-volume.js'
import type { RemoteSandbox, SandboxSummary } from '../sandbox/remote-sandbox.js'
import { S3Intents } from '../stores/s3/s3-intents.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import { type Claim, claimTask } from './claim-task.js'
import { createSandbox } from './create-sandbox.js'
import { type Inspection, inspectWorker } from './inspect.js'
import { LEASE_MS } from './lease.js'
import type { Access, ResolvedOptions } from './options.js'
import { placesOf, type TaskPlaces } from './places.js'
import { DEFAULT_CWD, grantEnd, issueGrant, provision, workerFiles } from './provision.js'
import { identityOf, METADATA, toMetadata } from './sandbox-metadata.js'
import type { ResolvedSpawn } from './spawn-options.js'
import { toUndeclaredRecord } from './undeclared.js'
import { Worker } from './worker.js'

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
  readonly #volumes = new Map<string, Promise<void>>()

  readonly #granter: Granter

  constructor(options: ResolvedOptions, s3: S3Location | undefined, granter: Granter) {
    this.#options = options
    this.#s3 = s3
    this.#granter = granter
    this.sandboxes = new E2bSandboxes(options.e2b)
  }

  /** Where a task's results lie, as far as the conductor's own settings say. */
  placesOf(taskId: string, volume = this.#options.volume): TaskPlaces {
    return placesOf({ taskId, volume }, this.#options, this.#s3)
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
    { signal, onClosed }: { readonly signal: AbortSignal; readonly onClosed: () => void },
  ): Promise<Worker | readonly SandboxSummary[]> {
    signal.throwIfAborted()
    const { taskId } = spawn
    const places = this.placesOf(taskId, spawn.volume)
    const spawnId = randomBytes(8).toString('hex')
    // Nobody else can know a name that was made up here.
    const claim = isNamed ? await this.#claim(spawn, spawnId, places, signal) : undefined
    if (claim !== undefined && !('release' in claim)) return claim
    try {
      return await this.#bringUp({ spawn, spawnId, places, claim, signal, onClosed })
    } catch (error) {
      await claim?.release()
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
    { signal, onClosed }: CallOptions & { readonly onClosed: () => void },
  ): Promise<Worker> {
    const expiresAt = grantEnd(Date.parse(record.deadline_at))
    const { localDir } = places
    const identity = { taskId: record.task_id, localDir, access }
    const grant = await issueGrant(this.#options, this.#granter, identity, expiresAt, { signal })
    // Any other that it has is as good, and lasts as long.
    if (grant?.endsEarly) await install(grant, sandbox, { signal })
    const worker = new Worker({ sandbox, record, places, grant, onClosed, found: inspection })
    await grant?.serve(sandbox, (event) => worker.emit('grant', event))
    return worker
  }

  #network(): EgressRules | undefined {
    const { egress, http, broker } = this.#options
    if (egress === undefined) return undefined
    return egressRules(egress, { s3: this.#s3, httpEndpoint: http?.endpoint, brokerUrl: broker?.url })
  }

  async #claim(
    { taskId, ifExists }: ResolvedSpawn,
    spawnId: string,
    { manifests }: TaskPlaces,
    signal: AbortSignal,
  ): Promise<Claim | readonly SandboxSummary[] | undefined> {
    const findSandboxes = (): Promise<SandboxSummary[]> => this.findSandboxes(taskId, { signal })
    const askE2b = async (): Promise<SandboxSummary[] | undefined> => {
      const found = await findSandboxes()
      return found.length > 0 ? found : undefined
    }
    if (this.#s3 === undefined || manifests === undefined) return askE2b()
    try {
      return await claimTask({
        intent: {
          v: 1,
          task_id: taskId,
          spawn_id: spawnId,
          conductor: this.#options.id,
          created_at: new Date().toISOString(),
          released: false,
        },
        intents: new S3Intents(this.#s3),
        manifests,
        findSandboxes,
        waits: ifExists === 'attach',
        signal,
      })
    } catch (error) {
      if (!isConductorError(error) || error.code === 'EXISTS') throw error
      // A store that is down or closed to us must not keep work from starting: what E2B knows has to do.
      return askE2b()
    }
  }

  async #bringUp(parts: {
    readonly spawn: ResolvedSpawn
    readonly spawnId: string
    readonly places: TaskPlaces
    readonly claim: Claim | undefined
    readonly signal: AbortSignal
    readonly onClosed: () => void
  }): Promise<Worker> {
    const { spawn, spawnId, places, claim, signal, onClosed } = parts
    const { taskId } = spawn
    const access = spawn.access ?? this.#options.access
    const { envs, files, grant } = await provision(this.#options, this.#s3, this.#granter, spawn, { signal })
    const { volume, localDir } = places
    if (volume !== undefined) await this.#ensureVolume(volume)
    const identity = { taskId, spawnId, conductorId: this.#options.id, localDir, volume, access }
    const { sandbox, removeStrays } = await createSandbox(
      this.sandboxes,
      {
        template: spawn.template ?? this.#options.template,
        timeoutMs: LEASE_MS,
        metadata: { ...spawn.metadata, ...toMetadata(identity) },
        envs,
        ...(volume === undefined ? {} : { volumeMounts: { [localDir]: volume } }),
        network: this.#network(),
        signal,
      },
      spawn.retries.create,
    )
    // The worker's own time begins when it has a place.
    const now = Date.now()
    const record: WorkerRecord = {
      v: 1,
      task_id: taskId,
      spawn_id: spawnId,
      attempt: claim?.attempt ?? 1,
      created_at: new Date(now).toISOString(),
      deadline_at: new Date(now + spawn.timeoutMs).toISOString(),
      grace_ms: spawn.graceMs,
      cwd: spawn.cwd ?? DEFAULT_CWD,
      outputs: spawn.outputs ?? [],
      undeclared: spawn.undeclared === undefined ? null : toUndeclaredRecord(spawn.undeclared),
    }
    try {
      await removeStrays()
      await claim?.confirm()
      await sandbox.writeFiles([...files, ...workerFiles(record, localDir)], { signal })
      const worker = new Worker({
        sandbox,
        record,
        places,
        grant,
        onClosed: () => {
          onClosed()
          // One that came late is found here; one that cannot be removed now is paused by E2B, and recover() finds it.
          removeStrays().catch(() => {})
        },
      })
      await Promise.all([
        grant?.serve(sandbox, (event) => worker.emit('grant', event)),
        spawn.command === undefined ? undefined : worker.start(spawn.command, { outputs: spawn.outputs }),
      ])
      signal.throwIfAborted()
      return worker
    } catch (error) {
      await grant?.end()
      await discard(sandbox, error)
      throw error
    }
  }

  /** Once per volume, however many workers start side by side. */
  async #ensureVolume(name: string): Promise<void> {
    let made = this.#volumes.get(name)
    if (made === undefined) {
      made = ensureVolume(name, this.#options.e2b)
      this.#volumes.set(name, made)
      made.catch(() => this.#volumes.delete(name))
    }
    await made
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

/** Kills a sandbox that never became a worker. */
async function discard(sandbox: RemoteSandbox, because: unknown): Promise<void> {
  try {
    await sandbox.kill()
  } catch (error) {
    const cause = new AggregateError([because, error])
    throw new ConductorError('UNAVAILABLE', `sandbox ${sandbox.id} could neither be equipped nor killed`, {
      cause,
    })
  }
}
