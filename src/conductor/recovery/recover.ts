import { setTimeout as delay } from 'node:timers/promises'
import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { type ConductorError, isConductorError } from '../../errors.js'
import type { SandboxSummary } from '../../sandbox/remote-sandbox.js'
import { wasKilled } from '../command/post-mortem.js'
import type { Receipt } from '../end/receipt.js'
import type { Reservation } from '../roster.js'
import { identityOf, METADATA } from '../sandbox-metadata.js'
import { EQUIP_WINDOW_MS } from '../spawn/claim-task.js'
import type { TaskLookup } from '../task-lookup.js'
import { foundExit } from '../worker/command-slot.js'
import { Worker, type WorkerParts } from '../worker/worker.js'
import { type EquippedWorker, type FoundWorkers, isEquipped } from './found-workers.js'
import { recoverVanished } from './recover-vanished.js'

const CONCURRENT_SANDBOXES = 8
const LOOK_EVERY_MS = 500
const FROM_START = { stdout: 0, stderr: 0 }

/** What {@link Conductor.recover} found and did. */
export interface Recovery {
  /** Workers whose command still runs: followed from now on, from the first byte of its output; the caller ends them as its own. */
  readonly workers: readonly Worker[]
  /**
   * Of workers whose command had ended: drained, sealed, and gone. With S3 also of those whose sandbox had vanished, unless they
   * were started in the last two minutes: certified, and sealed with what they had delivered.
   */
  readonly receipts: readonly Receipt[]
  /** Sandboxes that were left as they are, paused once their lease is over. */
  readonly failures: readonly {
    readonly taskId: string
    /** Empty for one that had vanished. */
    readonly sandboxId: string
    readonly error: ConductorError
  }[]
  /** Why workers whose sandbox had vanished could not be looked for, if so; another call does. */
  readonly unlisted?: ConductorError | undefined
}

interface Progress {
  /** Each becomes the conductor's own, and is followed, when all are told of. */
  readonly running: { readonly worker: Worker; readonly start: () => void }[]
  readonly receipts: Receipt[]
  readonly failures: Recovery['failures'][number][]
}

/** Options of {@link Conductor.recover}. */
export interface RecoverOptions extends CallOptions {
  /**
   * Called with each worker before anything is told of it, the place to listen to its output. Then also of workers whose command
   * has ended all output is told, from the first byte, before they are finished.
   */
  readonly onWorker?: ((worker: Worker) => void) | undefined
}

/** What recovery needs of the conductor. */
export interface RecoveryParts extends RecoverOptions {
  readonly conductorId: string
  readonly lookup: TaskLookup
  readonly foundWorkers: FoundWorkers
  /** Whether the conductor has, or is making, a worker for the task. */
  readonly isKnown: (taskId: string) => boolean
  /** Told of each worker that is over by then. */
  readonly onClosed: WorkerParts['onClosed']
  /** Whether an end of the task is known here and only not written down yet: it did not vanish. */
  readonly isUnsealed: (taskId: string) => boolean
  /** Keeps a task from everybody else here; undefined when the conductor has, or is making, a worker for it. */
  readonly reserve: (taskId: string) => Reservation | undefined
}

/**
 * Goes through all sandboxes of a conductor that is no more: follows what runs, finishes what has ended. Two processes may do
 * so at once; what one has finished the other passes over.
 */
export async function recoverWorkers(options: RecoveryParts): Promise<Recovery> {
  const { conductorId, lookup, isKnown, isUnsealed, signal } = options
  const byTask = new Map<string, SandboxSummary[]>()
  for await (const summary of lookup.sandboxes.list({ [METADATA.conductor]: conductorId }, { signal })) {
    const taskId = identityOf(summary)?.taskId
    if (taskId === undefined || isKnown(taskId)) continue
    byTask.set(taskId, [...(byTask.get(taskId) ?? []), summary])
  }
  const done: Progress = { running: [], receipts: [], failures: [] }
  const limit = pLimit(CONCURRENT_SANDBOXES)
  let unlisted: ConductorError | undefined
  try {
    const ends = await Promise.allSettled(
      [...byTask].map(([taskId, summaries]) =>
        limit(async () => {
          const reservation = options.reserve(taskId)
          // Somebody here has come to it since.
          if (reservation === undefined) return
          try {
            if (!(await recoverTask(taskId, summaries, { ...options, reservation }, done)))
              byTask.delete(taskId)
          } finally {
            if (done.running.every(({ worker }) => worker.taskId !== taskId)) reservation.release()
          }
        }),
      ),
    )
    signal?.throwIfAborted()
    for (const end of ends) if (end.status === 'rejected') throw end.reason
    const isSeenTo = (taskId: string): boolean => byTask.has(taskId) || isKnown(taskId) || isUnsealed(taskId)
    unlisted = await findVanished(options, isSeenTo, done)
  } finally {
    // Last of all, so that whoever awaits this can listen before the first of their output is told; also when it was cut short,
    // since these are the conductor's own by now.
    for (const { start } of done.running) start()
  }
  const workers = done.running.map(({ worker }) => worker)
  const found = { workers, receipts: done.receipts, failures: done.failures }
  return unlisted === undefined ? found : { ...found, unlisted }
}

/** Finishes workers that had vanished; gives why they could not be looked for, if so. */
async function findVanished(
  { conductorId, lookup, signal }: RecoveryParts,
  isSeenTo: (taskId: string) => boolean,
  done: Progress,
): Promise<ConductorError | undefined> {
  try {
    const { receipts, failures } = await recoverVanished({ conductorId, lookup, isSeenTo, signal })
    done.receipts.push(...receipts)
    done.failures.push(...failures.map((failure) => ({ ...failure, sandboxId: '' })))
    return undefined
  } catch (error) {
    if (!isConductorError(error)) throw error
    return error
  }
}

type TaskParts = RecoveryParts & { readonly reservation: Reservation }

/** Resolves with false when there was nothing of the task's to go on with. */
async function recoverTask(
  taskId: string,
  summaries: readonly SandboxSummary[],
  options: TaskParts,
  done: Progress,
): Promise<boolean> {
  const { foundWorkers, reservation, onWorker, signal } = options
  let isFollowed = false
  let isSeenTo = false
  // Where a task has several, the first one made is the one that others gave way to.
  const queue = [...summaries].sort((a, b) => a.startedAt.getTime() - b.startedAt.getTime())
  for (const summary of queue) {
    try {
      const found = await findEquipped(summary, options)
      if (found === undefined) continue
      isSeenTo = true
      const runs = found.inspection.pid !== undefined
      if (runs && !isFollowed) {
        isFollowed = true
        const worker = await foundWorkers.takeOver(found, { signal, onClosed: reservation.onClosed })
        const start = (): void => {
          reservation.admit(worker)
          onWorker?.(worker)
          worker.follow(found.inspection, FROM_START)
        }
        done.running.push({ worker, start })
        continue
      }
      const worker = await takeToFinish(found, options)
      try {
        onWorker?.(worker)
        // Why it was killed is still to be found out, and its last words belong to that.
        const isTold = onWorker !== undefined || wasKilled(foundExit(found.inspection))
        if (runs || isTold) worker.follow(found.inspection, FROM_START)
        // What has ended is only told of; what runs is stopped.
        if (!runs) await worker.wait({ signal })
        done.receipts.push(await worker.terminate({ signal }))
      } catch (error) {
        await worker.detach()
        throw error
      }
    } catch (error) {
      if (!isConductorError(error)) throw error
      // Somebody else has finished it.
      if (error.code === 'SANDBOX_GONE') continue
      // A command has begun that somebody, who may be no more, had sent before: it is to be followed.
      if (error.code === 'EXISTS' && queue.indexOf(summary) === queue.lastIndexOf(summary)) {
        queue.push(summary)
        continue
      }
      done.failures.push({ taskId, sandboxId: summary.id, error })
      isSeenTo = true
    }
  }
  return isSeenTo
}

/** Its grant is served meanwhile, so that it can deliver by itself; what it then cannot the conductor carries. */
async function takeToFinish(
  found: EquippedWorker,
  { foundWorkers, onClosed, signal }: RecoveryParts,
): Promise<Worker> {
  const { sandbox, places, inspection } = found
  try {
    return await foundWorkers.takeOver(found, { signal, onClosed })
  } catch (error) {
    if (!isConductorError(error) || error.code === 'SANDBOX_GONE') throw error
    return new Worker({ sandbox, record: inspection.record, places, found: inspection, onClosed })
  }
}

/** A sandbox that its conductor never came to equip holds nothing, and is removed once it is sure that nobody is at it. */
async function findEquipped(
  summary: SandboxSummary,
  { lookup, foundWorkers, signal }: RecoveryParts,
): Promise<EquippedWorker | undefined> {
  for (;;) {
    const found = await foundWorkers.find(summary, { signal })
    if (isEquipped(found)) return found
    if (Date.now() - summary.startedAt.getTime() > EQUIP_WINDOW_MS) break
    await delay(LOOK_EVERY_MS, undefined, { signal })
  }
  await lookup.sandboxes.kill(summary.id, { signal })
  return undefined
}
