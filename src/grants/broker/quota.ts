import { ConductorError } from '../../errors.js'
import { SIGNED_FOR_MS } from './sign-request.js'

/** How much a task may store through its broker. */
export interface QuotaLimits {
  /** Largest single result, in bytes. */
  readonly maxResultBytes: number
  /** Results of one task. @default no limit */
  readonly maxResults?: number | undefined
  /** Of all results of one task together, in bytes. @default no limit */
  readonly maxTaskBytes?: number | undefined
}

/** A result as the store lists it. */
export interface CountedResult {
  readonly key: string
  readonly sizeBytes: number
}

/** Slowest rate at which a body that was begun in time is still waited for, in bytes per millisecond. */
const SLOWEST_BYTES_PER_MS = 256

interface Promised {
  readonly sizeBytes: number
  readonly untilMs: number
}

/** Keeps a task within its limits. What the store has counts, and what was signed for and may still arrive. */
export class Quota {
  readonly #limits: QuotaLimits
  readonly #list: () => AsyncIterable<CountedResult>
  readonly #isOpen: (key: string) => boolean
  #stored: Map<string, number> | undefined
  readonly #promised = new Map<string, Promised>()

  /**
   * @param list what the task has in the store now; asked for at the first need, before anything is refused, and when something
   * that was signed for is over
   * @param isOpen whether parts of a result may lie in the store, which no listing tells
   */
  constructor(
    limits: QuotaLimits,
    list: () => AsyncIterable<CountedResult>,
    isOpen: (key: string) => boolean,
  ) {
    this.#limits = limits
    this.#list = list
    this.#isOpen = isOpen
  }

  /** Counts a result that is about to be signed for; rejects with `TOO_LARGE` when it is beyond a limit. */
  async reserve(key: string, sizeBytes: number): Promise<void> {
    const { maxResultBytes, maxResults, maxTaskBytes } = this.#limits
    if (sizeBytes > maxResultBytes) {
      throw new ConductorError(
        'TOO_LARGE',
        `${sizeBytes} bytes are more than the ${maxResultBytes} that one result may have`,
      )
    }
    if (maxResults === undefined && maxTaskBytes === undefined) return
    const over = this.#over()
    const fresh = this.#stored === undefined || over.length > 0
    if (fresh) {
      this.#stored = await this.#read()
      // By now the store has what came of them, if anything.
      for (const [overKey, promised] of over) {
        if (this.#promised.get(overKey) === promised) this.#promised.delete(overKey)
      }
    }
    let problem = this.#take(key, sizeBytes)
    if (problem !== undefined && !fresh) {
      this.#stored = await this.#read()
      problem = this.#take(key, sizeBytes)
    }
    if (problem !== undefined) throw new ConductorError('TOO_LARGE', problem)
  }

  /** Checks and counts without waiting in between, so that requests side by side cannot both get the last place. */
  #take(key: string, sizeBytes: number): string | undefined {
    const { maxResults = Number.POSITIVE_INFINITY, maxTaskBytes = Number.POSITIVE_INFINITY } = this.#limits
    const sizes = new Map(this.#stored)
    for (const [promisedKey, { sizeBytes: bytes }] of this.#promised) {
      sizes.set(promisedKey, Math.max(bytes, sizes.get(promisedKey) ?? 0))
    }
    sizes.set(key, Math.max(sizeBytes, sizes.get(key) ?? 0))
    if (sizes.size > maxResults) return `the task has its ${maxResults} results`
    let total = 0
    for (const bytes of sizes.values()) total += bytes
    if (total > maxTaskBytes) {
      return `${sizeBytes} bytes more are beyond the ${maxTaskBytes} that the task may store`
    }
    const untilMs = Date.now() + SIGNED_FOR_MS + sizeBytes / SLOWEST_BYTES_PER_MS
    this.#promised.set(key, { sizeBytes, untilMs })
    return undefined
  }

  /** What was signed for and can no longer arrive. */
  #over(): [string, Promised][] {
    const now = Date.now()
    return [...this.#promised].filter(([key, { untilMs }]) => untilMs <= now && !this.#isOpen(key))
  }

  async #read(): Promise<Map<string, number>> {
    const sizes = new Map<string, number>()
    for await (const { key, sizeBytes } of this.#list()) sizes.set(key, sizeBytes)
    return sizes
  }
}
