import { ConductorError } from '../../errors.js'
import { egressRules } from '../../grants/egress.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import { ensureVolume } from '../../sandbox/e2b-volume.js'
import type { CreateSandboxOptions, RemoteSandbox, SandboxFile } from '../../sandbox/remote-sandbox.js'
import { insist } from '../back-off.js'
import { toUndeclaredRecord } from '../end/undeclared.js'
import { LEASE_MS } from '../lease.js'
import type { Means } from '../means.js'
import type { SandboxNews } from '../open-intent.js'
import type { TaskPlaces } from '../places.js'
import { toMetadata } from '../sandbox-metadata.js'
import type { AttemptParts } from '../worker/attempt.js'
import { workerFiles } from '../worker/worker-files.js'
import { createSandbox } from './create-sandbox.js'
import { DEFAULT_CWD, provision } from './provision.js'
import type { ResolvedSpawn } from './spawn-options.js'
import { takenKeyFiles } from './taken-keys.js'

/** What a sandbox is wanted for. */
export interface EquipOptions {
  readonly spawn: ResolvedSpawn
  readonly spawnId: string
  readonly places: TaskPlaces
  /** Numbers this sandbox among the task's. */
  readonly attempt: number
  /** When the worker's time is up; where this is left out it begins with the sandbox. */
  readonly endsAt?: Date | undefined
  /** Rejects when the task was taken over while the sandbox was made. */
  readonly confirm: (news: SandboxNews) => Promise<void>
  readonly signal: AbortSignal
}

/** Makes sandboxes and puts into them what a worker needs. */
export class Equipper {
  readonly #means: Means
  readonly #volumes = new Map<string, Promise<void>>()

  constructor(means: Means) {
    this.#means = means
  }

  /** Resolves once nothing but a command is missing; what was made is undone when that fails. Its grant is not served yet. */
  async equip(wanted: EquipOptions): Promise<AttemptParts> {
    const { spawn, spawnId, places, attempt, confirm, signal } = wanted
    const { taskId } = spawn
    const { volume, localDir } = places
    const { options, s3, granter, lookup } = this.#means
    const access = spawn.access ?? options.access
    const deadlineAt = wanted.endsAt ?? new Date(Date.now() + spawn.timeoutMs)
    const timeoutMs = deadlineAt.getTime() - Date.now()
    const { envs, files, grant } = await provision(options, s3, granter, { ...spawn, timeoutMs }, { signal })
    if (volume !== undefined) await this.#ensureVolume(volume)
    const encryptionKey = options.encryption?.publicKey
    const conductorId = options.id
    const given = { localDir, volume, access, encryptionKey }
    const identity = { taskId, spawnId, conductorId, attempt, deadlineAt, ...given }
    const { sandbox, removeStrays } = await createSandbox(
      lookup.sandboxes,
      {
        template: spawn.template ?? options.template,
        timeoutMs: LEASE_MS,
        metadata: { ...spawn.metadata, ...toMetadata(identity) },
        envs,
        ...(volume === undefined ? {} : { volumeMounts: { [localDir]: volume } }),
        network: this.#network(),
        signal,
      },
      spawn.retries.create,
    )
    const record = recordOf(wanted)
    try {
      await removeStrays()
      const write = async (): Promise<void> => {
        const taken = await this.#takenKeys(wanted)
        await sandbox.writeFiles([...files, ...taken, ...workerFiles(record, localDir)], { signal })
      }
      await Promise.all([confirm({ sandbox_id: sandbox.id, deadline_at: record.deadline_at }), write()])
      return { sandbox, record, grant, removeStrays }
    } catch (error) {
      await grant?.end()
      await discard(sandbox, error)
      throw error
    }
  }

  /** A spool that outlives sandboxes knows its keys itself. */
  async #takenKeys({ spawn, places, attempt, signal }: EquipOptions): Promise<readonly SandboxFile[]> {
    if (attempt === 1 || places.s3 === undefined || places.volume !== undefined) return []
    const temporaryFolder = spawn.env?.TMPDIR || '/tmp'
    return takenKeyFiles(spawn.taskId, places.s3, { temporaryFolder, signal })
  }

  #network(): CreateSandboxOptions['network'] {
    const { options, s3 } = this.#means
    const { egress, http, broker } = options
    if (egress === undefined) return undefined
    return egressRules(egress, { s3, httpEndpoint: http?.endpoint, brokerUrl: broker?.url })
  }

  /** Once per volume, however many workers start side by side. */
  async #ensureVolume(name: string): Promise<void> {
    let made = this.#volumes.get(name)
    if (made === undefined) {
      made = ensureVolume(name, this.#means.options.e2b)
      this.#volumes.set(name, made)
      made.catch(() => this.#volumes.delete(name))
    }
    await made
  }
}

function recordOf({ spawn, spawnId, attempt, endsAt }: EquipOptions): WorkerRecord {
  // The worker's own time begins when it has a place.
  const now = Date.now()
  return {
    v: 1,
    task_id: spawn.taskId,
    spawn_id: spawnId,
    attempt,
    created_at: new Date(now).toISOString(),
    deadline_at: (endsAt ?? new Date(now + spawn.timeoutMs)).toISOString(),
    grace_ms: spawn.graceMs,
    cwd: spawn.cwd ?? DEFAULT_CWD,
    outputs: spawn.outputs ?? [],
    undeclared: spawn.undeclared === undefined ? null : toUndeclaredRecord(spawn.undeclared),
  }
}

/** Kills a sandbox that never became a worker. */
export async function discard(sandbox: RemoteSandbox, because: unknown): Promise<void> {
  try {
    await insist(() => sandbox.kill())
  } catch (error) {
    const cause = new AggregateError([because, error])
    throw new ConductorError('UNAVAILABLE', `sandbox ${sandbox.id} could neither be equipped nor killed`, {
      cause,
    })
  }
}
