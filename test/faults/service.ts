import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'

/** A server in a process of its own, which can be killed and started again over the same data. */
export class Service {
  readonly #program: string
  readonly #args: readonly string[]
  readonly #env: NodeJS.ProcessEnv
  #child: ChildProcess | undefined

  constructor(program: string, args: readonly string[], env: NodeJS.ProcessEnv) {
    this.#program = program
    this.#args = args
    this.#env = env
  }

  /** Starts it and gives what it says of itself. */
  async start<T>(): Promise<T> {
    const child = spawn(process.execPath, [this.#program, ...this.#args], {
      env: this.#env,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#child = child
    const [said] = (await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(([code, signal]) => {
        throw new Error(`${this.#program} ended at its start: ${code ?? signal}`)
      }),
    ])) as [T]
    return said
  }

  /** Rejects when it ends by itself. */
  get died(): Promise<never> {
    const child = this.#child
    if (child === undefined) throw new Error(`${this.#program} was not started`)
    const died = once(child, 'exit').then(([code, signal]) => {
      throw new Error(`${this.#program} ended: ${code ?? signal}`)
    })
    // Whoever asked may have gone on to other things.
    died.catch(() => {})
    return died
  }

  /** SIGKILL, and waits until it is gone. */
  async kill(): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }

  /** Lets it end by itself. */
  async stop(): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.disconnect()
    await exited
  }

  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child?.kill(signal)
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }
}
