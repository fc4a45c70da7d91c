/** News that wait until somebody can listen. */
export class Backlog {
  #waiting: (() => void)[] | undefined
  #released: Promise<void> = Promise.resolve()
  #release: () => void = () => {}

  /** Resolves once nothing waits. */
  get released(): Promise<void> {
    return this.#released
  }

  /** From now on news wait. */
  hold(): void {
    this.#waiting = []
    this.#released = new Promise((released) => {
      this.#release = released
    })
  }

  /** Tells at once, or in its turn. */
  tell(news: () => void): void {
    if (this.#waiting === undefined) news()
    else this.#waiting.push(news)
  }

  release(): void {
    const waiting = this.#waiting ?? []
    this.#waiting = undefined
    try {
      for (const news of waiting) news()
    } finally {
      this.#release()
    }
  }
}
