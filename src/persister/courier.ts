import { ConductorError, isConductorError } from '../errors.js'
import type { RemoteTier, ResultRecord } from '../protocol/record.js'
import { describeError } from './fs-error.js'
import { tierDeadlineMs } from './remote/limits.js'
import type { DeliveryContext, RemoteStore } from './remote/remote-store.js'
import { Tiers } from './remote/tiers.js'
import type { Settings } from './settings.js'
import type { ResumeState } from './spool/resume-file.js'
import type { Body } from './spool/stage.js'

/** Where a result has to get to: nowhere in particular, one tier, or any remote one. */
export type Requirement = RemoteTier | 'remote' | undefined

const headings: Readonly<Record<RemoteTier, string>> = {
  s3: 'S3 storage failed',
  http: 'HTTP storage failed',
}

/** Whether a record says that its result is where it has to be. */
export function satisfies(record: ResultRecord, requirement: Requirement): boolean {
  if (requirement === undefined) return true
  return record.stored.some(({ tier }) => requirement === 'remote' || tier === requirement)
}

/** Carries results of one task to its remote tiers, first S3, else HTTP, and remembers which are down. */
export class Courier {
  readonly #settings: Settings
  readonly #tiers: Tiers
  /** Tiers that outlasted every retry: further results in this process get one attempt's patience less. */
  readonly #down = new Map<RemoteTier, ConductorError>()

  constructor(settings: Settings, taskId: string) {
    this.#settings = settings
    this.#tiers = new Tiers(settings, taskId)
  }

  /** Loads what delivering needs once the event loop is idle, such as while the disk is waited for. */
  prepare(): void {
    setImmediate(() => void this.hasRemote())
  }

  /** Whether any remote tier is configured, however badly. */
  async hasRemote(): Promise<boolean> {
    for (const tier of ['s3', 'http'] as const) {
      try {
        if ((await this.#tiers.find(tier)) !== undefined) return true
      } catch {
        // Configured so that it cannot work is configured; delivering says what is wrong.
        return true
      }
    }
    return false
  }

  /**
   * Tries the tiers in order until one has the result and the requirement is met. Gives the record with what happened;
   * rejects only with `EXISTS`, when a store has another result under the key and none has this one. `foresee` is told the
   * record as it will be if the tier that is being tried takes it.
   */
  async deliver(
    record: ResultRecord,
    body: Body,
    requirement: Requirement,
    context: DeliveryContext,
    foresee?: (record: ResultRecord) => void,
  ): Promise<ResultRecord> {
    let current = record
    for (const tier of ['s3', 'http'] as const) {
      if (current.stored.length > 0 && satisfies(current, requirement)) break
      if (current.stored.some((stored) => stored.tier === tier)) continue
      const at = new Date().toISOString()
      const before = current
      const storedAt = (location: string): ResultRecord => {
        const { [tier]: _settled, ...errors } = before.errors
        return { ...before, stored: [...before.stored, { tier, location, at }], errors }
      }
      try {
        const location = await this.#tryTier(tier, current, body, {
          ...context,
          foresee: (expected) => foresee?.(storedAt(expected)),
        })
        if (location !== undefined) current = storedAt(location)
      } catch (error) {
        context.signal?.throwIfAborted()
        const typed = isConductorError(error)
          ? error
          : new ConductorError('UNAVAILABLE', describeError(error), { cause: error })
        if (typed.code === 'EXISTS' && current.stored.length === 0) throw typed
        this.#settings.warn(`${headings[tier]}: ${typed.message}`)
        const message = typed.message.slice(0, 2000)
        current = { ...current, errors: { ...current.errors, [tier]: { code: typed.code, message, at } } }
      }
    }
    return current
  }

  /** Frees what an upload to S3 has left there that nobody will finish. What cannot be freed now is left for the next to try. */
  async abandon(resume: ResumeState): Promise<void> {
    if (resume.load() === undefined) return
    try {
      const store = await this.#tiers.find('s3')
      await store?.abandon?.(resume)
    } catch {
      // A store that is down fails here for the reason that another tier has the result; that has been reported.
    }
  }

  async #tryTier(
    tier: RemoteTier,
    record: ResultRecord,
    body: Body,
    context: DeliveryContext,
  ): Promise<string | undefined> {
    const down = this.#down.get(tier)
    if (down !== undefined) throw down
    const store = await this.#tiers.find(tier)
    if (store === undefined) return undefined
    try {
      return await this.#withDeadline(store, record, body, context)
    } catch (error) {
      if (!isConductorError(error)) throw error
      if (store.granted && (error.code === 'EXPIRED' || error.code === 'ACCESS_DENIED')) {
        const fresh = this.#tiers.refresh() ? await this.#tiers.find(tier) : undefined
        if (fresh !== undefined) return await this.#withDeadline(fresh, record, body, context)
      }
      if (error.retryable) this.#down.set(tier, error)
      throw error
    }
  }

  async #withDeadline(
    store: RemoteStore,
    record: ResultRecord,
    body: Body,
    context: DeliveryContext,
  ): Promise<string> {
    const deadlineMs = tierDeadlineMs(this.#settings.limits, body.sizeBytes)
    const controller = new AbortController()
    const timer = setTimeout(() => {
      const line = `not done within ${Math.round(deadlineMs / 1000)} s`
      controller.abort(new ConductorError('TIMEOUT', line, { retryable: true }))
    }, deadlineMs)
    const forward = (): void => controller.abort(context.signal?.reason)
    context.signal?.addEventListener('abort', forward, { once: true })
    try {
      return await store.store(record, body, { ...context, signal: controller.signal })
    } finally {
      clearTimeout(timer)
      context.signal?.removeEventListener('abort', forward)
    }
  }
}
