import { Worker } from 'node:worker_threads'

/** A thread without work for so long is ended. */
const IDLE_MS = 5000

/** Kept as text, so that bundlers carry it along. What was just written comes back from memory, not from the disk. */
const SCRIPT = `
const { createHash } = require('node:crypto')
const { closeSync, openSync, readSync } = require('node:fs')
const { parentPort } = require('node:worker_threads')
const files = new Map()
const buffer = Buffer.allocUnsafe(1 << 20)
const read = (file, writtenBytes) => {
  while (file.at < writtenBytes) {
    const count = readSync(file.fd, buffer, 0, Math.min(buffer.length, writtenBytes - file.at), file.at)
    if (count === 0) throw new Error('the file is shorter than what was written to it')
    file.hash.update(buffer.subarray(0, count))
    file.at += count
  }
}
parentPort.on('message', ({ id, path, writtenBytes, ends }) => {
  const file = files.get(id) ?? { hash: createHash('sha256'), at: 0 }
  files.set(id, file)
  try {
    if (path !== undefined) file.fd = openSync(path)
    if (ends !== 'abandoned' && file.failed === undefined) read(file, writtenBytes)
  } catch (error) {
    file.failed = true
  }
  if (ends === undefined) return
  files.delete(id)
  if (file.fd !== undefined) closeSync(file.fd)
  if (ends === 'whole') parentPort.postMessage({ id, digest: file.failed ? undefined : file.hash.digest('hex') })
})
`

type Settle = (digest: string | undefined) => void

/** One thread for all files of this process, there only while there is work. */
class DigestThread {
  static #current: DigestThread | undefined
  readonly #worker: Worker
  readonly #waiting = new Map<number, Settle>()
  readonly #files = new Set<number>()
  #lastId = 0
  #idle: NodeJS.Timeout | undefined

  private constructor() {
    // Nothing of the program's own flags and environment is needed.
    this.#worker = new Worker(SCRIPT, { eval: true, execArgv: [], env: {} })
    this.#worker.on('message', ({ id, digest }: { id: number; digest: string | undefined }) => {
      this.#settle(id, digest)
    })
    this.#worker.on('error', () => this.#end())
    this.#worker.on('exit', () => this.#end())
  }

  static get(): DigestThread {
    DigestThread.#current ??= new DigestThread()
    return DigestThread.#current
  }

  open(path: string): number {
    clearTimeout(this.#idle)
    const id = ++this.#lastId
    this.#files.add(id)
    this.#worker.ref()
    this.#worker.postMessage({ id, path, writtenBytes: 0 })
    return id
  }

  advance(id: number, writtenBytes: number): void {
    this.#worker.postMessage({ id, writtenBytes })
  }

  async finish(id: number, writtenBytes: number): Promise<string | undefined> {
    // Of a thread that has ended, nothing comes any more.
    if (!this.#files.has(id)) return undefined
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve)
      this.#worker.postMessage({ id, writtenBytes, ends: 'whole' })
    })
  }

  abandon(id: number): void {
    if (!this.#files.has(id)) return
    this.#worker.postMessage({ id, writtenBytes: 0, ends: 'abandoned' })
    this.#settle(id, undefined)
  }

  #settle(id: number, digest: string | undefined): void {
    this.#waiting.get(id)?.(digest)
    this.#waiting.delete(id)
    this.#files.delete(id)
    if (this.#files.size > 0) return
    this.#worker.unref()
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => {
      this.#end()
      void this.#worker.terminate()
    }, IDLE_MS).unref()
  }

  #end(): void {
    if (DigestThread.#current === this) DigestThread.#current = undefined
    clearTimeout(this.#idle)
    this.#files.clear()
    for (const settle of this.#waiting.values()) settle(undefined)
    this.#waiting.clear()
  }
}

/** The SHA-256 of a file while it is written, on a thread beside the one that takes the bytes in. One of finish and abandon must be called. */
export class FileDigest {
  readonly #thread: DigestThread
  readonly #id: number

  private constructor(thread: DigestThread, path: string) {
    this.#thread = thread
    this.#id = thread.open(path)
  }

  /** The file must be there until the end. Undefined where there can be no threads, as Node's permissions may have it. */
  static start(path: string): FileDigest | undefined {
    try {
      return new FileDigest(DigestThread.get(), path)
    } catch {
      // Whoever writes the file digests it then, as slow as that is.
      return undefined
    }
  }

  /** Tells how much of the file can be read by now. */
  advance(writtenBytes: number): void {
    this.#thread.advance(this.#id, writtenBytes)
  }

  /** The digest of all that was written, 64 hex digits; undefined when the thread could not tell. */
  finish(writtenBytes: number): Promise<string | undefined> {
    return this.#thread.finish(this.#id, writtenBytes)
  }

  /** Forgets the file. */
  abandon(): void {
    this.#thread.abandon(this.#id)
  }
}
