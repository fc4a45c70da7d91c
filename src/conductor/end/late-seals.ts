import { setTimeout as delay } from 'node:timers/promises'
import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import { joinSignals } from '../../signals.js'
import { untilAborted } from '../../until-aborted.js'
import { backOffMs } from '../back-off.js'

/** A worker's end that S3 could not take at the time. */
export interface LateSeal {
  readonly taskId: string
  /** Writes it down; rejects while S3 still cannot take it. */
  readonly write: (options: CallOptions) => Promise<void>
}

/** Ends of workers that are not written down yet. Who comes later would take such a worker for one that was lost, and not know why. */
export class LateSeals {
  /** In the order in which they are to be written. */
  #open: LateSeal[] = []
  #tries = 0
  #isOver = false
  #timer: NodeJS.Timeout | undefined
  /** Ends the tries of all others along with those of {@link finish}. */
  readonly #enough = new AbortController()
  #trying: Promise<void> = Promise.resolve()

  /** Tries in the background from now on; it does not keep the process from ending. */
  add(seals: readonly LateSeal[]): void {
    if (seals.length === 0) return
    this.#open.push(...seals)
    this.#wind()
  }

  /** Whether an end of the task is not written down yet. */
  has(taskId: string): boolean {
    return this.#open.some((seal) => seal.taskId === taskId)
  }

  /** Tries once at once; what S3 still cannot take stays open. */
  async tryNow({ signal }: CallOptions = {}): Promise<void> {
    if (this.#open.length > 0) await untilAborted(this.#try({ signal }), signal)
  }

  /** Tries until all are written or the signal says that it is enough; once, without one. */
  async finish({ signal }: CallOptions = {}): Promise<void> {
    this.#isOver = true
    clearTimeout(this.#timer)
    const stop = (): void => this.#enough.abort(signal?.reason)
    if (signal?.aborted) stop()
    signal?.addEventListener('abort', stop, { once: true })
    for (let tries = 0; this.#open.length > 0; tries++) {
      await this.#try()
      if (this.#open.length === 0 || signal === undefined || signal.aborted) return
      // Being told that it is enough ends the wait as well.
      await delay(backOffMs(tries), undefined, { signal }).catch(() => {})
    }
  }

  #wind(): void {
    clearTimeout(this.#timer)
    if (this.#isOver) return
    this.#timer = setTimeout(
      () => {
        const again = (): void => {
          if (this.#open.length > 0) this.#wind()
        }
        // What goes wrong otherwise goes wrong again, and is heard by whoever then awaits it: at the latest, who closes.
        void this.#try().then(again, again)
      },
      backOffMs(this.#tries++),
    )
    this.#timer.unref()
  }

  /** One after the other, and one go at a time. */
  #try({ signal }: CallOptions = {}): Promise<void> {
    const enough = this.#enough.signal
    const either = joinSignals(enough, signal)
    // Whoever awaits the one before hears of what went wrong with it.
    this.#trying = this.#trying.catch(() => {}).then(() => this.#goThrough(either))
    return this.#trying
  }

  async #goThrough(signal: AbortSignal): Promise<void> {
    for (let next = this.#open[0]; next !== undefined && !signal.aborted; next = this.#open[0]) {
      try {
        await next.write({ signal })
      } catch (error) {
        if (signal.aborted) return
        if (!isConductorError(error)) throw error
        if (error.retryable) return
        // What will never be taken is not offered again: the receipt said that it was not sealed.
      }
      this.#open.shift()
      this.#tries = 0
    }
  }
}
