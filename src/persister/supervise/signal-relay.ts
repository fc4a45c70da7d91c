import { systemCode } from '../../files/system-code.js'

const PASSED_ON = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const

/** Passes this process's signals on to a command's process group, also those that came before the command was there. */
export class SignalRelay {
  readonly #graceMs: number | undefined
  readonly #early: NodeJS.Signals[] = []
  readonly #take = (signal: NodeJS.Signals): void => this.#pass(signal)
  #group: number | undefined
  #kill: NodeJS.Timeout | undefined

  /** @param graceMs after a SIGTERM the group gets so long before it is killed; undefined means for ever */
  constructor(graceMs: number | undefined) {
    this.#graceMs = graceMs
    for (const signal of PASSED_ON) process.on(signal, this.#take)
  }

  /** @param group the command's pid, which leads its process group; undefined when it could not be started */
  attach(group: number | undefined): void {
    this.#group = group
    for (const signal of this.#early.splice(0)) this.#pass(signal)
  }

  /** Gives signals their default meaning back. */
  end(): void {
    clearTimeout(this.#kill)
    for (const signal of PASSED_ON) process.off(signal, this.#take)
  }

  #pass(signal: NodeJS.Signals): void {
    if (this.#group === undefined) {
      this.#early.push(signal)
      return
    }
    this.#send(signal)
    if (signal !== 'SIGTERM' || this.#graceMs === undefined) return
    this.#kill ??= setTimeout(() => this.#send('SIGKILL'), this.#graceMs)
  }

  #send(signal: NodeJS.Signals): void {
    if (this.#group === undefined) return
    try {
      process.kill(-this.#group, signal)
    } catch (error) {
      // The group may just have ended.
      if (systemCode(error) !== 'ESRCH') throw error
    }
  }
}
