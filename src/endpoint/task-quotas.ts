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

/** Holds what a task keeps against its limits. Counts once and then keeps count, so that an upload costs no listing. */
export class TaskQuotas {
  readonly #backend: EndpointBackend
  readonly #limits: ResolvedLimits
  readonly #usages = new Map<string, Promise<Usage>>()

  constructor(backend: EndpointBackend, limits: ResolvedLimits) {
    this.#backend = backend
    this.#limits = limits
  }

  /** Reserves room for a result, or throws 507; the function it gives returns the room when nothing was stored. */
  async reserve(taskId: string, sizeBytes: number): Promise<() => void> {
    const { maxTaskBytes, maxTaskResults } = this.#limits
    if (maxTaskBytes === undefined && maxTaskResults === undefined) return () => undefined
    const usage = await this.#usage(taskId)
    if (usage.count + 1 > (maxTaskResults ?? Number.POSITIVE_INFINITY)) {
      throw exceeded(`the task keeps ${maxTaskResults} results already`)
    }
    if (usage.sizeBytes + sizeBytes > (maxTaskBytes ?? Number.POSITIVE_INFINITY)) {
      throw exceeded(`the task may keep at most ${maxTaskBytes} bytes`)
    }
    usage.count++
    usage.sizeBytes += sizeBytes
    return () => {
      usage.count--
      usage.sizeBytes -= sizeBytes
    }
  }

  /** Has a task counted anew, after something of it was deleted. */
  forget(taskId: string): void {
    this.#usages.delete(taskId)
  }

  async #usage(taskId: string): Promise<Usage> {
    const known = this.#usages.get(taskId)
    if (known !== undefined) {
      const usage = await known
      if (Date.now() - usage.countedAtMs < TRUSTED_MS) return usage
    }
    // Two that find the same old count must share the new one.
    const current = this.#usages.get(taskId)
    if (current !== undefined && current !== known) return current
    if (this.#usages.size >= MAX_TASKS) this.#usages.clear()
    const counting = this.#backend
      .usage(taskId)
      .then(({ count, sizeBytes }) => ({ count, sizeBytes, countedAtMs: Date.now() }))
    this.#usages.set(taskId, counting)
    // A count that failed is nobody's to keep.
    counting.catch(() => this.#usages.delete(taskId))
    return counting
  }
}

function exceeded(message: string): HttpError {
  return new HttpError(507, 'task_quota_exceeded', message)
}
