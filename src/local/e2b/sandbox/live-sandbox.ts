import type { Socket } from 'node:net'
import type { CommandSpec, Jail, JailedProcess } from '../jail/jail.js'
import { Metrics } from './metrics.js'
import { ProcessTable } from './process-table.js'

/** The part of a sandbox that a pause without memory ends and a resume makes anew. */
export class LiveSandbox {
  readonly jail: Jail
  readonly processes = new ProcessTable()
  readonly metrics: Metrics
  readonly #starting = new Set<Promise<JailedProcess>>()

  constructor(jail: Jail, rootFolder: string) {
    this.jail = jail
    this.metrics = new Metrics(jail, rootFolder)
  }

  /** Starts a command; a pause waits until it has, so that none slips through. */
  async start(spec: CommandSpec): Promise<JailedProcess> {
    const starting = this.jail.start(spec)
    this.#starting.add(starting)
    try {
      return await starting
    } finally {
      this.#starting.delete(starting)
    }
  }

  async freeze(): Promise<void> {
    await Promise.allSettled(this.#starting)
    await this.jail.freeze()
  }

  async end(): Promise<void> {
    this.metrics.stop()
    await this.jail.destroy()
    this.processes.clear()
  }
}

/** Connections of requests that are being answered for a sandbox, to be cut when it goes. */
export class OpenRequests {
  readonly #sockets = new Map<Socket, number>()

  add(socket: Socket): () => void {
    this.#sockets.set(socket, (this.#sockets.get(socket) ?? 0) + 1)
    return () => {
      const left = (this.#sockets.get(socket) ?? 1) - 1
      if (left === 0) this.#sockets.delete(socket)
      else this.#sockets.set(socket, left)
    }
  }

  /** As the real one does: no last words, the connection is just gone. */
  cut(): void {
    for (const socket of this.#sockets.keys()) socket.destroy()
    this.#sockets.clear()
  }
}
