import type { Readable, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { JailedProcess } from '../jail/jail.js'
import { RequestError } from '../request-error.js'
import { type EndEvent, toEndEvent } from './exit-event.js'

/** What a client asked to start, and sees again when it lists. */
export interface ProcessConfig {
  readonly cmd: string
  readonly args: readonly string[]
  readonly envs: Readonly<Record<string, string>>
  readonly cwd?: string
}

/** Someone who follows a process. */
export interface Follower {
  /** Takes output; a promise says when it can take more. */
  onOutput(stream: 'stdout' | 'stderr', chunk: Buffer): Promise<void> | undefined
  onEnd(end: EndEvent): void
}

/** After SIGKILL, how long to wait for output that others who share the pipe could still hold back. */
const DRAIN_MS = 50

/** A command with those who follow it. Output that nobody follows is lost; a slow follower slows the command down. */
export class RunningProcess {
  readonly config: ProcessConfig
  readonly tag: string | undefined
  readonly #process: JailedProcess
  readonly #followers = new Set<Follower>()
  #killed = false
  #end: EndEvent | undefined
  /** Resolves with the end, after the last output has gone out. */
  readonly ended: Promise<EndEvent>
  #begin: () => void = () => {}

  constructor(process: JailedProcess, config: ProcessConfig, tag: string | undefined) {
    this.#process = process
    this.config = config
    this.tag = tag
    const begun = new Promise<void>((resolve) => {
      this.#begin = resolve
    })
    this.ended = this.#run(begun)
  }

  get pid(): number {
    return this.#process.pid
  }

  get running(): boolean {
    return this.#end === undefined
  }

  /** Follows from now on; the first call starts the flow of output. Returns how to stop. */
  follow(follower: Follower): () => void {
    if (this.#end !== undefined) {
      follower.onEnd(this.#end)
      return () => {}
    }
    this.#followers.add(follower)
    this.#begin()
    return () => this.#followers.delete(follower)
  }

  async writeStdin(data: Buffer): Promise<void> {
    const stdin = this.#stdin()
    await new Promise<void>((resolve, reject) => {
      stdin.write(data, (error) => {
        if (error == null) resolve()
        else
          reject(
            new RequestError('invalid_argument', `stdin of process ${this.pid} is closed`, { cause: error }),
          )
      })
    })
  }

  async closeStdin(): Promise<void> {
    const stdin = this.#stdin()
    stdin.end()
    await finished(stdin, { readable: false })
  }

  /** Signals the process itself, not its children; false when it has ended. */
  async signal(name: 'SIGTERM' | 'SIGKILL'): Promise<boolean> {
    if (name === 'SIGKILL') this.#killed = true
    return this.#process.signal(name)
  }

  #stdin(): Writable {
    const { stdin } = this.#process
    if (stdin === undefined || stdin.writableEnded || stdin.destroyed) {
      throw new RequestError('invalid_argument', `process ${this.pid} has no open stdin`)
    }
    return stdin
  }

  async #run(begun: Promise<void>): Promise<EndEvent> {
    const { stdout, stderr, stdin, exited } = this.#process
    await begun
    const outputs = Promise.all([this.#pump('stdout', stdout), this.#pump('stderr', stderr)])
    const status = await exited
    // Children may hold the pipes open for as long as they like, except after a kill.
    if (this.#killed) await Promise.race([outputs, delay(DRAIN_MS)])
    else await outputs
    for (const stream of [stdin, stdout, stderr]) stream?.destroy()
    this.#end = toEndEvent(status)
    for (const follower of this.#followers) follower.onEnd(this.#end)
    this.#followers.clear()
    return this.#end
  }

  async #pump(name: 'stdout' | 'stderr', stream: Readable): Promise<void> {
    try {
      for await (const chunk of stream) {
        await Promise.all([...this.#followers].map((follower) => follower.onOutput(name, chunk as Buffer)))
      }
    } catch {
      // The pipe was given up after a kill; how the process ended is what its exit says.
    }
  }
}
