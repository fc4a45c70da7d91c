import { type ChildProcess, fork } from 'node:child_process'
import type { CallEnd, PersistCall, RunningCall } from './call.js'

/** A process that stores many results through the module, until it is killed. */
export class ModuleProcess {
  #child: ChildProcess | undefined
  /** Of the child. */
  #gone: Promise<void> = Promise.resolve()

  /** Starts a process if there is none. */
  call(call: PersistCall): RunningCall {
    this.#child ??= this.#start()
    const child = this.#child
    const end = new Promise<CallEnd>((done) => {
      const answered = (answer: CallEnd): void => {
        child.off('exit', died)
        done(answer)
      }
      const died = (code: number | null, signal: string | null): void => {
        child.off('message', answered)
        done({ status: 'died', said: `module ended with ${signal ?? code}` })
      }
      child.once('message', answered)
      child.once('exit', died)
    })
    child.send(call, (error) => {
      // It is gone then, which `exit` tells.
      if (error !== null) return
    })
    return { pid: child.pid ?? 0, end, gone: this.#gone }
  }

  end(): void {
    if (this.#child?.connected === true) this.#child.disconnect()
  }

  #start(): ChildProcess {
    const child = fork(process.argv[1] ?? '', ['module'], { detached: true, serialization: 'advanced' })
    // A kill may hit it when it has just answered: whoever calls next must not wait for an exit that was long ago.
    this.#gone = new Promise((done) => {
      child.once('exit', () => {
        if (this.#child === child) this.#child = undefined
        done()
      })
    })
    return child
  }
}
