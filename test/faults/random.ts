import { createHash } from 'node:crypto'
import { seededRandom } from '../support/persister/random.js'

/** Decisions that a seed and a label make; two labels never share a sequence. */
export class Dice {
  readonly #next: () => number

  constructor(seed: number, ...label: readonly (string | number)[]) {
    const digest = createHash('sha256')
      .update(JSON.stringify([seed, ...label]))
      .digest()
    this.#next = seededRandom(digest.readUInt32LE(0))
  }

  /** In [0, 1). */
  fraction(): number {
    return this.#next()
  }

  /** An integer from `low` to `high`, both possible. */
  between(low: number, high: number): number {
    return low + Math.floor(this.#next() * (high - low + 1))
  }

  chance(probability: number): boolean {
    return this.#next() < probability
  }

  /** One of the values, each as likely as its weight says. */
  weighted<T>(choices: readonly (readonly [T, number])[]): T {
    let left = this.#next() * choices.reduce((sum, [, weight]) => sum + weight, 0)
    for (const [value, weight] of choices) {
      left -= weight
      if (left < 0) return value
    }
    const last = choices.at(-1)
    if (last === undefined) throw new Error('nothing to choose from')
    return last[0]
  }
}
