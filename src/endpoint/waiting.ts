/**
 * Waiting that can be given up, once and for all. One listener serves a whole body: a listener, or a race, for each of its
 * chunks would cost more than the chunk.
 */
export class Waiting {
  readonly #waiters = new Set<(reason: unknown) => void>()
  #over: { readonly reason: unknown } | undefined

  /** Gives up when the signal says so; the signal must not outlive what is waited for by much. */
  constructor(signal: AbortSignal) {
    if (signal.aborted) this.giveUp(signal.reason)
    else signal.addEventListener('abort', () => this.giveUp(signal.reason), { once: true })
  }

  /** Rejects everything that is waited for, now and later, with this reason; only the first one counts. */
  giveUp(reason: unknown): void {
    if (this.#over !== undefined) return
    this.#over = { reason }
    for (const reject of this.#waiters) reject(reason)
    this.#waiters.clear()
  }

  /** Waits for something that calls back; rejects with the reason when waiting is given up first. */
  until<T>(start: (resolve: (value: T) => void, reject: (error: unknown) => void) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#over !== undefined) return reject(this.#over.reason)
      this.#waiters.add(reject)
      start(
        (value) => {
          this.#waiters.delete(reject)
          resolve(value)
        },
        (error) => {
          this.#waiters.delete(reject)
          reject(error)
        },
      )
    })
  }
}
