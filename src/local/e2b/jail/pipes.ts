import { close, constants, open } from 'node:fs'
import { mkdir, unlink } from 'node:fs/promises'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { runTool } from './run-tool.js'

const BATCH = 48
// Plain numbers, not FileHandles: a socket takes its descriptor over and closes it.
const openFd = promisify(open)
const closeFd = promisify(close)

/** One pipe, both ends open. Closing `childEnd` once the command has it is up to {@link closeChildEnds}. */
export interface Pipe {
  readonly stream: Socket
  readonly childEnd: number
}

/** Gives up the server's copies of the ends that belong to a command; without this no pipe would ever end. */
export async function closeChildEnds(pipes: readonly Pipe[]): Promise<void> {
  for (const { childEnd } of pipes) await closeFd(childEnd)
}

/**
 * Real pipes for the standard streams of commands. Node gives its children socket pairs, and a shell cannot reopen those:
 * `echo oops >/dev/stderr` would fail. A FIFO that is opened at both ends and unlinked is an ordinary pipe.
 */
export class Pipes {
  readonly #folder: string
  #ready: string[] = []
  #making: Promise<void> | undefined
  #made = 0

  constructor(folder: string) {
    this.#folder = folder
  }

  /** A pipe from a command to the server. */
  output(): Promise<Pipe> {
    return this.#open(async (path) => {
      const reader = await openFd(path, constants.O_RDONLY | constants.O_NONBLOCK)
      const childEnd = await openFd(path, constants.O_WRONLY)
      return { stream: new Socket({ fd: reader, readable: true, writable: false }), childEnd }
    })
  }

  /** A pipe from the server to a command. */
  input(): Promise<Pipe> {
    return this.#open(async (path) => {
      // A writer can open only once there is a reader, and the command's own end must be a blocking one.
      const first = await openFd(path, constants.O_RDONLY | constants.O_NONBLOCK)
      const writer = await openFd(path, constants.O_WRONLY | constants.O_NONBLOCK)
      const childEnd = await openFd(path, constants.O_RDONLY)
      await closeFd(first)
      return { stream: new Socket({ fd: writer, readable: false, writable: true }), childEnd }
    })
  }

  async #open<T>(use: (path: string) => Promise<T>): Promise<T> {
    let path = this.#ready.pop()
    while (path === undefined) {
      this.#making ??= this.#make().finally(() => {
        this.#making = undefined
      })
      await this.#making
      path = this.#ready.pop()
    }
    try {
      return await use(path)
    } finally {
      await unlink(path)
    }
  }

  async #make(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    const paths = Array.from({ length: BATCH }, (_, i) => join(this.#folder, String(this.#made + i)))
    this.#made += BATCH
    await runTool('mkfifo', ['-m', '600', ...paths])
    this.#ready.push(...paths)
  }
}
