import type { CallOptions } from '../../call-options.js'
import { ConductorError } from '../../errors.js'
import { joinSignals } from '../../signals.js'
import { untilAborted } from '../../until-aborted.js'
import type { Receipt } from '../end/receipt.js'

/** How a worker is ended. */
export interface EndOptions extends CallOptions {
  readonly force: boolean
}

/** The end of a worker: whoever asks for it while it is under way, or is over, gets the same receipt. */
export class Ending {
  readonly #taskId: string
  readonly #end: (options: EndOptions) => Promise<Receipt>
  #underWay: Promise<Receipt> | undefined
  /** Ends a patient end of it in favour of a forced one. */
  #hurry = new AbortController()

  /** @param end ends the worker once; called again after it failed, and with `force` after it was cut short for that */
  constructor(taskId: string, end: (options: EndOptions) => Promise<Receipt>) {
    this.#taskId = taskId
    this.#end = end
  }

  /** Begins it, or joins the one that is under way. */
  async ask({ force, signal }: EndOptions): Promise<Receipt> {
    // Whoever began it may have more time.
    if (force) this.#hurry.abort(new ConductorError('CLOSED', `${this.#taskId} was to be killed meanwhile`))
    if (this.#underWay !== undefined) return untilAborted(this.#underWay, signal)
    const ending = force ? this.#end({ force, signal }) : this.#endPatiently(signal)
    this.#underWay = ending.catch((error: unknown) => {
      // A refusal or a failure leaves the sandbox as it is; the next call tries again.
      this.#underWay = undefined
      this.#hurry = new AbortController()
      throw error
    })
    return this.#underWay
  }

  async #endPatiently(signal: AbortSignal | undefined): Promise<Receipt> {
    const hurry = this.#hurry.signal
    try {
      return await this.#end({ force: false, signal: joinSignals(hurry, signal) })
    } catch (error) {
      // Somebody has no more patience; whoever had gets the same receipt.
      if (hurry.aborted) return this.#end({ force: true })
      throw error
    }
  }
}
