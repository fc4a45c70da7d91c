import { type ConductorError, isConductorError } from '../errors.js'
import type { RemoteSandbox } from '../sandbox/remote-sandbox.js'

/** How long a sandbox goes on without hearing from its conductor; then E2B pauses it, with all it holds. */
export const LEASE_MS = 900_000

/** Keeps a sandbox alive while its worker may run, a lease at a time, so that one whose conductor is gone is soon paused. */
export class Lease {
  readonly #timer: NodeJS.Timeout
  readonly #sandbox: RemoteSandbox
  readonly #endsAt: number
  readonly #onGone: (error: ConductorError) => void

  /** @param lifeMs the worker's own time; the lease is not extended past it */
  constructor(sandbox: RemoteSandbox, lifeMs: number, onGone: (error: ConductorError) => void) {
    this.#sandbox = sandbox
    this.#endsAt = Date.now() + lifeMs
    this.#onGone = onGone
    // Three tries fall into each lease, so one failed renewal is no loss.
    this.#timer = setInterval(() => void this.#renew(), LEASE_MS / 3)
    this.#timer.unref()
  }

  /** Stops renewing. */
  end(): void {
    clearInterval(this.#timer)
  }

  async #renew(): Promise<void> {
    if (Date.now() > this.#endsAt) return this.end()
    try {
      await this.#sandbox.extend(LEASE_MS)
    } catch (error) {
      // Anything else is retried by the next tick, well before the lease is over.
      if (isConductorError(error) && error.code === 'SANDBOX_GONE') {
        this.end()
        this.#onGone(error)
      }
    }
  }
}
