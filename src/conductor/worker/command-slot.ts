import type { CallOptions } from '../../call-options.js'
import type { ConductorError } from '../../errors.js'
import type { DeathCause, Outcome } from '../../protocol/outcome.js'
import { untilAborted } from '../../until-aborted.js'
import type { LogOffsets } from '../command/follow-log.js'
import type { Inspection } from '../command/inspect.js'
import type { RunResult, SupervisedCommand } from '../command/supervised-command.js'
import type { WorkerExit } from '../end/receipt.js'

/** A worker that ran nothing. */
const IDLE_EXIT: WorkerExit = { outcome: 'idle', exitCode: null, signal: null }

/** Who is told of a command's end. */
export interface SlotEvents {
  /** Says why it ended, if not by itself; must not reject. */
  readonly examine: (exit: WorkerExit, run: RunResult) => Promise<DeathCause | undefined>
  readonly end: (exit: WorkerExit) => void
  /** Its end cannot be seen: another go at the same, which then counts in its place, unless that is not to be. */
  readonly again: (error: unknown) => Promise<SupervisedCommand> | undefined
  /** Its end cannot be seen, and that is that. */
  readonly failure: (error: unknown) => void
}

/** The one command that a worker runs at a time, and how the last one ended. */
export class CommandSlot {
  #exit: WorkerExit
  /** From the moment its start is asked for. */
  #command: Promise<SupervisedCommand> | undefined
  #end: Promise<WorkerExit> | undefined
  #stopOutcome: Outcome | undefined

  /** @param exit how the last command ended, as far as somebody else knew */
  constructor(exit: WorkerExit = IDLE_EXIT) {
    this.#exit = exit
  }

  /** How the last command ended; of the one before while one runs. */
  get exit(): WorkerExit {
    return this.#exit
  }

  set exit(exit: WorkerExit) {
    this.#exit = exit
  }

  /** Takes a command that is being started; `onEnd` hears of its end before whoever waits. */
  take(command: Promise<SupervisedCommand>, on: SlotEvents): void {
    this.#command = command
    this.#end = this.#watch(command, on)
    // Whoever waits hears of a failure; nobody may be waiting.
    this.#end.catch(() => {})
  }

  /** What comes next was not asked to end, whatever was asked of the command before. */
  forgetStop(): void {
    this.#stopOutcome = undefined
  }

  /** Asks the present command to end and resolves when it has; its outcome is then the first one given. */
  async stop(outcome: Outcome, options: CallOptions = {}): Promise<void> {
    const { signal } = options
    const isFirst = this.#stopOutcome === undefined
    this.#stopOutcome ??= outcome
    if (this.#command === undefined) return
    const command = await untilAborted(this.#command, signal)
    // It ended by itself, and only its output is still being read.
    if (isFirst && command.wasOver) this.#stopOutcome = undefined
    await command.stop(options)
    if (this.#end !== undefined) await untilAborted(this.#end, signal)
  }

  /** Sees no more of the present command, whatever becomes of it; whoever waits for its end is told the reason, else `CLOSED`. */
  async leave(reason?: ConductorError): Promise<void> {
    await (await this.#started())?.leave(reason)
  }

  /** How far the output of the present command was told, once it was left or has ended; undefined where none was started. */
  async offsets(): Promise<LogOffsets | undefined> {
    return (await this.#started())?.offsets()
  }

  /** Resolves once the present command runs, or never will. */
  async settled(): Promise<void> {
    await this.#command?.then(
      () => {},
      () => {},
    )
  }

  /** Resolves when the last command has ended, at once when none ever ran. */
  async wait({ signal }: CallOptions = {}): Promise<WorkerExit> {
    signal?.throwIfAborted()
    const end = this.#end
    if (end === undefined) return this.#exit
    return untilAborted(end, signal)
  }

  async #started(): Promise<SupervisedCommand | undefined> {
    try {
      return await this.#command
    } catch {
      // It was never started, which whoever started it hears.
      return undefined
    }
  }

  async #watch(command: Promise<SupervisedCommand>, on: SlotEvents): Promise<WorkerExit> {
    for (let current = command; ; ) {
      try {
        const run = await (await current).ended
        const exit = exitOf(run, this.#stopOutcome)
        const cause = await on.examine(exit, run)
        this.#exit = cause === undefined ? exit : { ...exit, cause }
        on.end(this.#exit)
        return this.#exit
      } catch (error) {
        const next = this.#stopOutcome === undefined ? on.again(error) : undefined
        if (next === undefined) {
          on.failure(error)
          throw error
        }
        this.#command = next
        current = next
      }
    }
  }
}

/** How a command ended that others started; nobody sees any more whether somebody stopped it. */
export function foundExit({ exit }: Inspection): WorkerExit {
  return exitOf({ exitCode: exit?.code ?? null, signal: exit?.signal ?? null })
}

/** What a command's end means for its worker; `stopped` is why somebody ended it. */
function exitOf({ exitCode, signal }: Pick<RunResult, 'exitCode' | 'signal'>, stopped?: Outcome): WorkerExit {
  return { outcome: stopped ?? (exitCode === 0 ? 'succeeded' : 'failed'), exitCode, signal }
}
