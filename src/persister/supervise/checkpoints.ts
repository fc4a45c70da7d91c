import { setTimeout as sleep } from 'node:timers/promises'
import type { Keeper, Keepsake } from './keeper.js'

/** Stores things that changed at intervals, one round after the other; stopping waits for a round that has begun. */
export class Checkpoints {
  readonly #stop = new AbortController()
  readonly #rounds: Promise<void>

  constructor(keeper: Keeper, things: readonly Keepsake[], everyMs: number) {
    this.#rounds = things.length === 0 ? Promise.resolve() : this.#run(keeper, things, everyMs)
  }

  async #run(keeper: Keeper, things: readonly Keepsake[], everyMs: number): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      // Stopping ends the wait with an error that says only that.
      await sleep(everyMs, undefined, { signal, ref: false }).catch(() => {})
      if (!signal.aborted) await keeper.keep(things, 'failures')
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#rounds
  }
}
