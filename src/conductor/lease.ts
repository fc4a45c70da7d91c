import { type ConductorError, isConductorError } from '../errors.js'
import type { RemoteSandbox } from '../sandbox/remote-sandbox.js'

/** How long a sandbox goes on without hearing from its conductor; then E2B pauses it, with all it holds. */
export const LEASE_MS = 900_000

/** What a lease tells. */
export interface LeaseEvents {
  /** So much life from now on, in milliseconds. */
  readonly extended: (ms: number) => void
  /** The sandbox exists no more. */
  readonly gone: (error: ConductorError) => void
}

/** Keeps a sandbox alive while its worker may run, a lease at a time, so that one whose conductor is gone is soon paused. */
export class Lease {
  readonly #timer: NodeJS.Timeout
  readonly #sandbox: Pick<RemoteSandbox, 'extend'>
  #endsAt: number
  #isHeld = false
  readonly #on: LeaseEvents

  /** @param endsAt when the worker's own time is up; the lease is not renewed past it, unless it is held */
  constructor(sandbox: Pick<RemoteSandbox, 'extend'>, endsAt: Date, on: LeaseEvents) {
    this.#sandbox = sandbox
    this.#endsAt = endsAt.getTime()
    this.#on = on
    // Three tries fall into each lease, so one failed renewal is no loss.
    this.#timer = setInterval(() => void this.#renew(), LEASE_MS / 3)
    this.#timer.unref()
  }

  /** Renews at once, and until then. */
  async prolong(endsAt: Date): Promise<void> {
    this.#endsAt = endsAt.getTime()
    await this.#sandbox.extend(LEASE_MS)
    this.#on.extended(LEASE_MS)
  }

  /** Renews also past the worker's time, while somebody finishes it; at once where it is past that. */
  async hold(): Promise<void> {
    this.#isHeld = true
    if (Date.now() <= this.#endsAt) return
    try {
      await this.#sandbox.extend(LEASE_MS)
      this.#on.extended(LEASE_MS)
    } catch (error) {
      // Whoever finishes it finds out what became of it.
      if (!isConductorError(error)) throw error
    }
  }

  /** Renews until the worker's time is up, and no longer. */
  release(): void {
    this.#isHeld = false
  }

  /** Stops renewing. */
  end(): void {
    clearInterval(this.#timer)
  }

  async #renew(): Promise<void> {
    if (Date.now() > this.#endsAt && !this.#isHeld) return
    try {
      await this.#sandbox.extend(LEASE_MS)
      this.#on.extended(LEASE_MS)
    } catch (error) {
      // Anything else is retried by the next tick, well before the lease is over.
      if (isConductorError(error) && error.code === 'SANDBOX_GONE') {
        this.end()
        this.#on.gone(error)
      }
    }
  }
}
