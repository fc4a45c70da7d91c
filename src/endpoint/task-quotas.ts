import type { EndpointBackend } from './backends/endpoint-backend.js'
import { HttpError } from './http-error.js'
import type { ResolvedLimits } from './options.js'

/** How long a count is trusted; other processes may write to the same storage. */
const TRUSTED_MS = 60_000
/** Tasks remembered at once. */
const MAX_TASKS = 10_000

interface Usage {
  count: number
  sizeBytes: number
  readonly countedAtMs: number
}

/** Gives back what was reserved unless it was stored; `unknown` where nobody can tell. To be called once. */
export type EndReservation = (stored: boolean | 'unknown') => void

/** Holds what a task keeps against its limits. Counts once and then keeps count, so that an upload costs no listing. */
export class TaskQuotas {
  readonly #backend: EndpointBackend
  readonly #limits: ResolvedLimits
  readonly #usages = new Map<string, Promise<Usage>>()
  /** What is being stored at the moment, by task: a count that is made meanwhile may or may not have seen it. */
  readonly #underWay = new Map<string, Set<Promise<void>>>()

  constructor(backend: EndpointBackend, limits: ResolvedLimits) {
    this.#backend = backend
    this.#limits = limits
  }

  /** Reserves room for a result, or throws 507. */
  async reserve(taskId: string, sizeBytes: number): Promise<EndReservation> {
    const { maxTaskBytes, maxTaskResults } = this.#limits
    if (maxTaskBytes === undefined && maxTaskResults === undefined) return () => undefined
    const counting = this.#usages.get(taskId) ?? this.#startCount(taskId)
    const usage = await counting
    // A count of now, and one that whatever begins from here on is noted in, or it would be missed by the next.
    if (this.#usages.get(taskId) !== counting) return this.reserve(taskId, sizeBytes)
    if (Date.now() - usage.countedAtMs >= TRUSTED_MS) {
      this.forget(taskId)
      return this.reserve(taskId, sizeBytes)
    }
    if (usage.count + 1 > (maxTaskResults ?? Number.POSITIVE_INFINITY)) {
      throw exceeded(`the task keeps ${maxTaskResults} results already`)
    }
    if (usage.sizeBytes + sizeBytes > (maxTaskBytes ?? Number.POSITIVE_INFINITY)) {
      throw exceeded(`the task may keep at most ${maxTaskBytes} bytes`)
    }
    usage.count++
    usage.sizeBytes += sizeBytes
    const settle = this.#begin(taskId)
    return (stored) => {
      if (stored === 'unknown') this.forget(taskId)
      else if (!stored) {
        usage.count--
        usage.sizeBytes -= sizeBytes
      }
      settle()
    }
  }

  /** Has a task counted anew, after something of it was deleted. */
  forget(taskId: string): void {
    this.#usages.delete(taskId)
  }

  /** Notes that something is being stored, until the function that it gives is called. */
  #begin(taskId: string): () => void {
    const underWay = this.#underWay.get(taskId) ?? new Set()
    this.#underWay.set(taskId, underWay)
    let settle = (): void => undefined
    const done = new Promise<void>((resolve) => {
      settle = resolve
    })
    underWay.add(done)
    return () => {
      underWay.delete(done)
      if (underWay.size === 0) this.#underWay.delete(taskId)
      settle()
    }
  }

  #startCount(taskId: string): Promise<Usage> {
    if (this.#usages.size >= MAX_TASKS) this.#usages.clear()
    const counting = this.#count(taskId)
    this.#usages.set(taskId, counting)
    counting.catch(() => {
      // A count that failed is nobody's to keep.
      if (this.#usages.get(taskId) === counting) this.#usages.delete(taskId)
    })
    return counting
  }

  /** Counts once nothing is under way that it might miss. */
  async #count(taskId: string): Promise<Usage> {
    await Promise.all(this.#underWay.get(taskId) ?? [])
    const { count, sizeBytes } = await this.#backend.usage(taskId)
    return { count, sizeBytes, countedAtMs: Date.now() }
  }
}

function exceeded(message: string): HttpError {
  return new HttpError(507, 'task_quota_exceeded', message)
}
