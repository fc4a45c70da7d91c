import type { SupervisedCommand } from '../command/supervised-command.js'
import type { LateSeal } from '../end/late-seals.js'
import type { Receipt, WorkerExit } from '../end/receipt.js'
import { Attempt, type AttemptOptions, type AttemptParts, type FinishAttemptOptions } from './attempt.js'
import { type Repetition, Retrier, type RetrierOptions } from './retrier.js'

/** A worker's sandboxes: one at a time, and one after the other where lost ones are followed by others. */
export class Attempts {
  readonly #options: AttemptOptions
  #current: Attempt
  #retrier: Retrier | undefined

  constructor(first: AttemptParts, options: AttemptOptions) {
    this.#options = options
    this.#current = new Attempt(first, options)
  }

  /** The last one while another is being made. */
  get current(): Attempt {
    return this.#current
  }

  /** Whether another may follow. */
  get isWilling(): boolean {
    return this.#retrier?.isWilling === true
  }

  /** Has a sandbox that is lost from now on followed by another. */
  repeat(repetition: Repetition, on: RetrierOptions): void {
    this.#retrier = new Retrier(repetition, {
      ...on,
      begin: (attempt) => {
        this.#current = attempt
        return on.begin(attempt)
      },
    })
  }

  /** No other follows; one that is being made is undone. */
  stop(): void {
    this.#retrier?.stop()
  }

  /** Puts another in the place of the present one, which was lost, and begins its command there. */
  replace(loss: Parameters<Retrier['replace']>[1]): Promise<SupervisedCommand> | undefined {
    return this.#retrier?.replace(
      this.#current,
      loss,
      (parts) => new Attempt(parts, { ...this.#options, takenOver: false }),
    )
  }

  /** Finishes the present one; its receipt tells of the ones before, too. */
  async finish(exit: WorkerExit, options: FinishAttemptOptions): Promise<Receipt> {
    const receipt = await this.#current.finish(exit, options)
    const earlier = this.#retrier?.earlier ?? []
    return earlier.length === 0 ? receipt : { ...receipt, earlier: earlier.map((lost) => lost.receipt) }
  }

  /** Ends that could not be written down yet. The last one's comes first: what it left is not its predecessors'. */
  get lateSeals(): readonly LateSeal[] {
    const lost = (this.#retrier?.earlier ?? []).map(({ attempt }) => attempt)
    return [this.#current, ...lost].flatMap(({ lateSeal }) => lateSeal ?? [])
  }

  /** Sees to the present sandbox no longer. */
  async end(how: Parameters<Attempt['end']>[0]): Promise<void> {
    await this.#current.end(how)
  }
}
