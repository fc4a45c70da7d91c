/** Longest wait of one Node timer; anything beyond fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** Calls back once at a moment that may be moved, however far away. */
export class Alarm {
  readonly #ring: () => void
  #timer: NodeJS.Timeout | undefined

  constructor(ring: () => void) {
    this.#ring = ring
  }

  set(at: Date): void {
    clearTimeout(this.#timer)
    const waitMs = Math.max(0, at.getTime() - Date.now())
    this.#timer =
      waitMs > MAX_TIMER_MS ? setTimeout(() => this.set(at), MAX_TIMER_MS) : setTimeout(this.#ring, waitMs)
    this.#timer.unref()
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}
