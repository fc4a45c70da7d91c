import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { ConductorEvent, ConductorOrder } from './messages.js'

/** A conductor in a process of its own. */
export class ConductorProcess {
  readonly #child: ChildProcess
  readonly #exited: Promise<unknown>

  private constructor(child: ChildProcess) {
    this.#child = child
    this.#exited = once(child, 'exit')
  }

  /** Resolves once it takes orders; every event comes to the listener. */
  static async start(
    program: string,
    env: NodeJS.ProcessEnv,
    options: Readonly<Record<string, unknown>>,
    onEvent: (event: ConductorEvent) => void,
  ): Promise<ConductorProcess> {
    const child = spawn(process.execPath, [program], {
      env: { ...env, LAB_CONDUCTOR: JSON.stringify(options) },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    const conductor = new ConductorProcess(child)
    child.on('message', (event: ConductorEvent) => onEvent(event))
    await Promise.race([
      once(child, 'message'),
      conductor.#exited.then(() => {
        throw new Error('the conductor ended at its start')
      }),
    ])
    return conductor
  }

  /** Rejects when it ends without having been asked to. */
  get died(): Promise<never> {
    return this.#exited.then(() => {
      if (this.#child.signalCode === 'SIGKILL') return new Promise<never>(() => {})
      throw new Error(`the conductor ended: ${this.#child.exitCode ?? this.#child.signalCode}`)
    })
  }

  order(order: ConductorOrder): void {
    // One that was just killed is followed by another, which gets the order again.
    if (this.#child.connected) this.#child.send(order, () => {})
  }

  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child.kill(signal)
  }

  async kill(): Promise<void> {
    if (this.#child.signalCode !== null) return
    // What it had told before is still heard.
    const heard = once(this.#child, 'disconnect')
    this.#child.kill('SIGKILL')
    await Promise.all([this.#exited, heard])
  }

  async stop(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect()
    await this.#exited
  }
}
