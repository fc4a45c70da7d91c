import { RequestError } from '../request-error.js'
import type { RunningProcess } from './running-process.js'

/** How long an ended process can still be asked for its end. */
const REMEMBER_END_MS = 30_000

/** Names a process by its number or by the tag it was started with. */
export interface ProcessSelector {
  readonly pid?: number | undefined
  readonly tag?: string | undefined
}

/** The commands of one sandbox that were started from outside. */
export class ProcessTable {
  readonly #byPid = new Map<number, RunningProcess>()
  readonly #forgetTimers = new Set<NodeJS.Timeout>()

  add(process: RunningProcess): void {
    this.#byPid.set(process.pid, process)
    void process.ended.then(() => this.#forgetLater(process))
  }

  running(): RunningProcess[] {
    return [...this.#byPid.values()].filter(({ running }) => running)
  }

  /** A process that runs or ended a moment ago. */
  find({ pid, tag }: ProcessSelector): RunningProcess {
    const found =
      pid === undefined
        ? [...this.#byPid.values()].find((one) => tag !== undefined && one.tag === tag)
        : this.#byPid.get(pid)
    if (found === undefined) throw new RequestError('not_found', `process ${pid ?? tag} not found`)
    return found
  }

  findRunning(selector: ProcessSelector): RunningProcess {
    const found = this.find(selector)
    if (!found.running) throw new RequestError('not_found', `process ${found.pid} has ended`)
    return found
  }

  /** Forgets all, for a sandbox whose processes are gone. */
  clear(): void {
    for (const timer of this.#forgetTimers) clearTimeout(timer)
    this.#forgetTimers.clear()
    this.#byPid.clear()
  }

  #forgetLater(process: RunningProcess): void {
    if (this.#byPid.get(process.pid) !== process) return
    const timer = setTimeout(() => {
      this.#forgetTimers.delete(timer)
      // The number may belong to another by now.
      if (this.#byPid.get(process.pid) === process) this.#byPid.delete(process.pid)
    }, REMEMBER_END_MS)
    timer.unref()
    this.#forgetTimers.add(timer)
  }
}
