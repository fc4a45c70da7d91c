/** The end of a worker's own time: tells once, early enough that a command can save its work before it. */
export class Deadline {
  readonly #graceMs: number
  readonly #onNear: () => void
  #timer: NodeJS.Timeout | undefined
  #at: Date

  /** @param graceMs how long before the end `onNear` is called, and never in the first half of the time that is left */
  constructor(at: Date, graceMs: number, onNear: () => void) {
    this.#graceMs = graceMs
    this.#onNear = onNear
    this.#at = at
    this.#wind()
  }

  get at(): Date {
    return this.#at
  }

  /** Puts the end elsewhere; tells again. */
  move(at: Date): void {
    this.#at = at
    this.#wind()
  }

  /** Tells nothing more. */
  end(): void {
    clearTimeout(this.#timer)
  }

  #wind(): void {
    clearTimeout(this.#timer)
    const leftMs = this.#at.getTime() - Date.now()
    this.#timer = setTimeout(this.#onNear, Math.max(0, leftMs - Math.min(this.#graceMs, leftMs / 2)))
    this.#timer.unref()
  }
}
