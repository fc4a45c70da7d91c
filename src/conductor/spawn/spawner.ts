import { randomBytes } from 'node:crypto'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { SandboxIntent } from '../../protocol/intent.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import { isGone } from '../../sandbox/map-sandbox-error.js'
import type { SandboxSummary } from '../../sandbox/remote-sandbox.js'
import { insist } from '../back-off.js'
import { inspectWorker } from '../command/inspect.js'
import type { LateSeals } from '../end/late-seals.js'
import { sealVanished } from '../end/seal-vanished.js'
import { LEASE_MS } from '../lease.js'
import type { Means } from '../means.js'
import type { SandboxNews } from '../open-intent.js'
import type { TaskPlaces } from '../places.js'
import { identityOf, isRecordOf } from '../sandbox-metadata.js'
import type { AttemptParts } from '../worker/attempt.js'
import type { RenewOptions, Repetition } from '../worker/retrier.js'
import { Worker, type WorkerParts } from '../worker/worker.js'
import { type Claim, claimTask, EQUIP_WINDOW_MS, unclaimed, unrivalled } from './claim-task.js'
import { discard, Equipper } from './equipper.js'
import type { ResolvedSpawn } from './spawn-options.js'

/** Makes new workers in new sandboxes. */
export class Spawner {
  readonly #means: Means
  readonly #lateSeals: LateSeals
  readonly #equipper: Equipper

  constructor(means: Means, lateSeals: LateSeals) {
    this.#means = means
    this.#lateSeals = lateSeals
    this.#equipper = new Equipper(means)
  }

  /** Creates a sandbox, equips it and starts its command; undone when that fails. Resolves with the task's sandboxes when it has some. */
  async spawn(
    spawn: ResolvedSpawn,
    isNamed: boolean,
    { signal, onClosed }: { readonly signal: AbortSignal; readonly onClosed: WorkerParts['onClosed'] },
  ): Promise<Worker | readonly SandboxSummary[]> {
    signal.throwIfAborted()
    const places = this.#means.lookup.placesOf(spawn.taskId, spawn.volume)
    const spawnId = newSpawnId()
    // Nobody else can know a name that was made up here.
    const claim = isNamed
      ? await this.#claim(spawn, { spawnId, places, signal })
      : this.#note(spawn.taskId, spawnId, places)
    if (claim !== undefined && !('attempt' in claim)) return claim
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
      if (!isConductorError(error) || error.code !== 'UNDELIVERED') await release(claim)
      throw error
    }
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
    const intent = this.#intentOf(taskId, spawnId, wanted.places)
    const findSandboxes = (): Promise<SandboxSummary[]> =>
      this.#means.lookup.findSandboxes(taskId, { signal })
    const askE2b = async (): Promise<SandboxSummary[] | undefined> => {
      const found = await findSandboxes()
      return found.length > 0 ? found : undefined
    }
    if (intents === undefined || manifests === undefined) return askE2b()
    // Else an end that is known here would count as one that nobody saw.
    if (this.#lateSeals.has(taskId)) await this.#lateSeals.tryNow({ signal })
    try {
      return await claimTask({
        intent,
        intents,
        manifests,
        findSandboxes,
        removeBare: (summary) => this.#removeBare(summary, { signal }),
        waits: previous === undefined && ifExists === 'attach',
        previous,
        bury: async (vanished, next) => {
          if (this.#lateSeals.has(taskId)) return false
          const places = this.#means.lookup.placesOf(taskId, vanished.volume)
          return buryVanished(vanished, { ...places, manifests }, { next, signal })
        },
        signal,
      })
    } catch (error) {
      // Without its conditions the store would not take the worker's end either.
      if (!isConductorError(error) || error.code === 'EXISTS' || error.code === 'UNSUPPORTED') throw error
      // A store that is down or closed to us must not keep work from starting: what E2B knows has to do.
      return (await askE2b()) ?? unclaimed(intents, intent, (previous?.attempt ?? 0) + 1)
    }
  }

  async #removeBare(summary: SandboxSummary, { signal }: CallOptions): Promise<boolean> {
    const identity = identityOf(summary)
    if (identity === undefined || Date.now() - summary.startedAt.getTime() <= EQUIP_WINDOW_MS) return false
    const { sandboxes } = this.#means.lookup
    try {
      const sandbox = await sandboxes.connect(summary.id, LEASE_MS, { signal })
      const { record } = await inspectWorker(sandbox, identity, { signal })
      if (isRecordOf(identity, record)) return false
      await sandboxes.kill(summary.id, { signal })
    } catch (error) {
      if (!isGone(error)) throw error
    }
    return true
  }

  #note(taskId: string, spawnId: string, places: TaskPlaces): Claim | undefined {
    const { intents } = places
    if (intents === undefined) return undefined
    return unrivalled(intents, this.#intentOf(taskId, spawnId, places))
  }

  #intentOf(taskId: string, spawnId: string, { volume }: TaskPlaces): SandboxIntent {
    const created_at = new Date().toISOString()
    const conductor = this.#means.options.id
    return { v: 1, task_id: taskId, spawn_id: spawnId, conductor, created_at, volume }
  }

  async #bringUp(spawning: Spawning & Pick<WorkerParts, 'onClosed'>): Promise<Worker> {
    const { spawn, spawnId, places, claim, signal, onClosed } = spawning
    const { command, outputs } = spawn
    const attempt = claim?.attempt ?? 1
    const confirm = async (news: SandboxNews): Promise<void> => claim?.confirm(news)
    const parts = await this.#equipper.equip({ spawn, spawnId, places, attempt, confirm, signal })
    const { sandbox, grant } = parts
    let isUp = false
    const worker = new Worker({
      ...parts,
      places,
      intent: claim?.intent,
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
    { previous, endsAt, onGrant, beforehand, signal }: RenewOptions,
  ): Promise<AttemptParts> {
    const spawnId = newSpawnId()
    const claim = await this.#claim(spawn, { spawnId, places, previous, signal })
    if (claim !== undefined && !('attempt' in claim)) {
      throw new ConductorError('EXISTS', `task ${spawn.taskId} has a worker in sandbox ${claim[0]?.id}`)
    }
    try {
      const attempt = claim?.attempt ?? previous.attempt + 1
      const confirm = async (news: SandboxNews): Promise<void> => claim?.confirm(news)
      const parts = await this.#equipper.equip({ spawn, spawnId, places, attempt, endsAt, confirm, signal })
      try {
        await parts.grant?.serve(parts.sandbox, onGrant)
        await beforehand()
        signal.throwIfAborted()
        return { ...parts, intent: claim?.intent }
      } catch (error) {
        await parts.grant?.end()
        await discard(parts.sandbox, error)
        throw error
      }
    } catch (error) {
      await release(claim)
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

/** Says that nothing came of a claim, so that the next one need not wait. */
async function release(claim: Claim | undefined): Promise<void> {
  try {
    await claim?.intent.close()
  } catch (error) {
    // Whoever wants the task waits until the window is over; nothing worse comes of it.
    if (!isConductorError(error)) throw error
  }
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

/** Writes down the end of a worker that was missed; false where that could not be done, for which a new one of the task does not wait. */
async function buryVanished(...vanished: Parameters<typeof sealVanished>): Promise<boolean> {
  try {
    await sealVanished(...vanished)
    return true
  } catch (error) {
    // The intent goes on telling of it.
    if (!isConductorError(error)) throw error
    return false
  }
}
