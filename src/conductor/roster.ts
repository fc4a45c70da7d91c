import pLimit from 'p-limit'
import { ConductorError } from '../errors.js'
import type { LateSeal } from './end/late-seals.js'
import { Worker, type WorkerParts } from './worker/worker.js'

/** How a worker is let in that is to be made. */
export interface Admission<Elsewhere> {
  /** Makes it; resolves with something else when the task has a worker elsewhere. */
  readonly make: (onClosed: WorkerParts['onClosed']) => Promise<Worker | Elsewhere>
  /** What whoever wanted it gets then. */
  readonly elsewhere: (found: Elsewhere) => Promise<Worker>
  /** Ends waiting for a place at once; once it has one, `make` sees to it. */
  readonly stop: AbortSignal
}

/** A task for which nobody else here makes or takes up a worker. */
export interface Reservation {
  /** For the worker that is taken up: the task is free again once that is over. */
  readonly onClosed: WorkerParts['onClosed']
  /** From now on it is one of the conductor's workers, who whoever asks for it gets: to be called once it is what it says. */
  readonly admit: (worker: Worker) => void
  /** Nothing came of it. */
  readonly release: () => void
}

/** The workers of one conductor: a task has one at most, and no more than so many are made that live side by side. */
export class Roster {
  readonly #limit: ReturnType<typeof pLimit>
  readonly #onClosed: WorkerParts['onClosed']
  readonly #workers = new Map<string, Worker>()
  readonly #taken = new Set<string>()
  readonly #starting = new Set<Promise<unknown>>()

  /** @param onClosed told of each that is over, with what is left to be written down of that */
  constructor(maxWorkers: number, onClosed: WorkerParts['onClosed']) {
    this.#limit = pLimit(maxWorkers)
    this.#onClosed = onClosed
  }

  /** Those that are not terminated, by task id. */
  get workers(): ReadonlyMap<string, Worker> {
    return this.#workers
  }

  /** How many wait for a place. */
  get queuedCount(): number {
    return this.#limit.pendingCount
  }

  /** Whether the task has a worker here, or one is being made or taken up. */
  isKnown(taskId: string): boolean {
    return this.#workers.has(taskId) || this.#taken.has(taskId)
  }

  /** Resolves once a worker is there, after waiting for a place if need be; rejects with `EXISTS` when the task has one here. */
  async admit<Elsewhere>(taskId: string, { make, elsewhere, stop }: Admission<Elsewhere>): Promise<Worker> {
    if (this.isKnown(taskId)) {
      // One that is being made or taken up may be given to whoever asks again, or be nothing.
      const retryable = !this.#workers.has(taskId)
      throw new ConductorError('EXISTS', `a worker for task ${taskId} is already here`, { retryable })
    }
    stop.throwIfAborted()
    this.#taken.add(taskId)
    return new Promise<Worker>((resolve, reject) => {
      const giveUp = (): void => {
        this.#taken.delete(taskId)
        reject(stop.reason)
      }
      // Waiting ends at once; once it is this worker's turn, what was begun is undone first.
      stop.addEventListener('abort', giveUp, { once: true })
      // A worker holds its place from the creation of its sandbox until that is gone.
      void this.#limit(async () => {
        if (stop.aborted) return
        stop.removeEventListener('abort', giveUp)
        try {
          let closed = (): void => {}
          const gone = new Promise<void>((done) => {
            closed = done
          })
          const onClosed = (lateSeals: readonly LateSeal[]): void => {
            this.#workers.delete(taskId)
            this.#onClosed(lateSeals)
            closed()
          }
          const made = await this.noteStart(async () => {
            const worker = await make(onClosed)
            if (worker instanceof Worker) this.#workers.set(taskId, worker)
            return worker
          })
          if (!(made instanceof Worker)) {
            this.#taken.delete(taskId)
            return resolve(await elsewhere(made))
          }
          resolve(made)
          // Whoever awaited it has had its turn by then, and listens.
          setImmediate(() => made.tellAll())
          await gone
        } catch (error) {
          reject(error)
        } finally {
          this.#taken.delete(taskId)
        }
      })
    })
  }

  /**
   * Keeps a task for whoever is about to take up a worker of it that was found, beyond the number of those that are made; undefined
   * when the task has one here.
   */
  reserve(taskId: string): Reservation | undefined {
    if (this.isKnown(taskId)) return undefined
    this.#taken.add(taskId)
    const release = (): void => void this.#taken.delete(taskId)
    const onClosed = (lateSeals: readonly LateSeal[]): void => {
      this.#workers.delete(taskId)
      release()
      this.#onClosed(lateSeals)
    }
    return { onClosed, release, admit: (worker) => void this.#workers.set(taskId, worker) }
  }

  /**
   * Terminates all side by side, those that are being made once they are there; gives why that failed, of each that lives on.
   * Those that are not finished when the signal aborts are detached.
   */
  async endAll(limit: AbortSignal | undefined): Promise<unknown[]> {
    // One that was nearly there is one more to be ended; others are undone.
    await Promise.race([Promise.allSettled(this.#starting), whenAborted(limit)])
    const ends = await Promise.allSettled(
      [...this.#workers.values()].map(async (worker) => {
        try {
          await worker.terminate({ signal: limit })
        } catch (error) {
          if (limit?.aborted) await worker.detach()
          throw error
        }
      }),
    )
    return ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as unknown] : []))
  }

  /** Has ending wait for what is being started or taken up. */
  async noteStart<T>(start: () => Promise<T>): Promise<T> {
    const starting = start()
    this.#starting.add(starting)
    try {
      return await starting
    } finally {
      this.#starting.delete(starting)
    }
  }
}

function whenAborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((done) => {
    if (signal?.aborted) done()
    else signal?.addEventListener('abort', () => done(), { once: true })
  })
}
