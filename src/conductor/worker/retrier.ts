import { setTimeout as delay } from 'node:timers/promises'
import { ConductorError, isConductorError } from '../../errors.js'
import type { GrantEvent } from '../../grants/broker/task-broker.js'
import type { DeathCertificate } from '../../protocol/death-certificate.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import { backOffMs } from '../back-off.js'
import type { SupervisedCommand } from '../command/supervised-command.js'
import type { Receipt } from '../end/receipt.js'
import type { Attempt, AttemptParts } from './attempt.js'
import type { WorkerRetry } from './worker-events.js'

/** What the next sandbox of a worker follows. */
export interface RenewOptions {
  /** Of the sandbox before. */
  readonly previous: WorkerRecord
  /** When the worker's time is up, all attempts together. */
  readonly endsAt: Date
  readonly onGrant: (event: GrantEvent) => void
  /** Called once nothing but the command is missing; where it rejects, the sandbox is undone. */
  readonly beforehand: () => Promise<void>
  readonly signal: AbortSignal
}

/** How a worker is begun again whose sandbox was lost. */
export interface Repetition {
  /** How often at most. */
  readonly times: number
  /** Makes the next sandbox, or leaves none behind; rejects with `EXISTS` when somebody else has taken the task meanwhile. */
  readonly renew: (options: RenewOptions) => Promise<AttemptParts>
}

/** Whom a retrier asks and tells. */
export interface RetrierOptions {
  /** Starts the command in the sandbox that takes the lost one's place. */
  readonly begin: (attempt: Attempt) => Promise<SupervisedCommand>
  readonly deadline: () => Date
  readonly onRetry: (retry: WorkerRetry) => void
  readonly onGrant: (event: GrantEvent) => void
}

/** A sandbox that was lost, and what is known to have come of it. */
export interface LostAttempt {
  readonly attempt: Attempt
  readonly receipt: Receipt
}

/** Puts another sandbox in the place of one that was lost, as often as it may. */
export class Retrier {
  readonly #repetition: Repetition
  readonly #options: RetrierOptions
  readonly #stopping = new AbortController()
  readonly #earlier: LostAttempt[] = []
  #retries = 0

  constructor(repetition: Repetition, options: RetrierOptions) {
    this.#repetition = repetition
    this.#options = options
  }

  /** Whether another attempt may follow. */
  get isWilling(): boolean {
    return this.#retries < this.#repetition.times && !this.#stopping.signal.aborted
  }

  /** What lost sandboxes left that another took the place of, the oldest first. */
  get earlier(): readonly LostAttempt[] {
    return this.#earlier
  }

  /** Nothing follows any more; what is under way is undone. */
  stop(): void {
    this.#stopping.abort(new ConductorError('CLOSED', 'no further attempt was wanted'))
  }

  /**
   * Certifies and seals what was lost, waits, makes the next sandbox and begins the command in it. Rejects with `SANDBOX_GONE`,
   * as whoever waits for the worker shall hear it, when there is no next sandbox.
   */
  async replace(
    lost: Attempt,
    loss: ConductorError,
    toAttempt: (parts: AttemptParts) => Attempt,
  ): Promise<SupervisedCommand> {
    const { begin, deadline, onRetry, onGrant } = this.#options
    const { signal } = this.#stopping
    const delayMs = backOffMs(this.#retries++)
    const exit = lost.signs.lost()
    const finish = (): Promise<Receipt> => lost.finish(exit, { force: true, isLost: true, signal })
    let next: Attempt
    try {
      await lost.end()
      // A store that is away must not keep work from starting again.
      const receipt = await finish()
      const certificate = lost.signs.certificate(exit) as DeathCertificate
      onRetry({ attempt: lost.record.attempt + 1, certificate, receipt, delayMs })
      await delay(delayMs, undefined, { signal })
      let last = receipt
      // Once more where S3 was away, before the next one stores anything.
      const beforehand = async (): Promise<void> => {
        if (!receipt.sealed) last = (await unlessAway(finish, signal)) ?? receipt
      }
      const options = { previous: lost.record, endsAt: deadline(), onGrant, beforehand, signal }
      next = toAttempt(await this.#repetition.renew(options))
      this.#earlier.push({ attempt: lost, receipt: last })
    } catch (error) {
      if (error === signal.reason) throw loss
      const why = error instanceof Error ? error.message : String(error)
      throw new ConductorError('SANDBOX_GONE', `${loss.message}, and no other took its place: ${why}`, {
        cause: error,
      })
    }
    return begin(next)
  }
}

/** Undefined where a place could not be reached; anything else that goes wrong is heard. */
async function unlessAway(finish: () => Promise<Receipt>, signal: AbortSignal): Promise<Receipt | undefined> {
  try {
    return await finish()
  } catch (error) {
    if (signal.aborted || !isConductorError(error)) throw error
    return undefined
  }
}
