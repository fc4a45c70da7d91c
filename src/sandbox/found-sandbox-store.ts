import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { assertKey, assertTaskId, compareKeys } from '../protocol/key.js'
import type { ResultRecord } from '../protocol/record.js'
import {
  describeRecord,
  type ListOptions,
  type OpenOptions,
  type ResultDescription,
  type ResultStore,
  type StoredEntry,
} from '../stores/result-store.js'
import { SpoolStore } from '../stores/spool-store.js'
import { readChunks } from '../streams/web-stream.js'
import type { RemoteSandbox, SandboxSummary } from './remote-sandbox.js'
import { SandboxFiles } from './sandbox-files.js'
import type { AfterReading, SandboxVisits, Visit } from './sandbox-visits.js'

/** How often a sandbox that is put to sleep in the middle of a read is woken again before that counts as a failure. */
const MAX_WAKES = 3

/** Where to look for a task's sandboxes, and what may be done with them. */
export interface FoundSandboxOptions {
  readonly taskId: string
  /** The spool's absolute path in a sandbox. */
  readonly localDir: string
  /** Finds the task's sandboxes, running and paused. */
  readonly find: (options: CallOptions) => AsyncIterable<SandboxSummary>
  readonly visits: SandboxVisits
  /** Whether paused ones are woken. */
  readonly resumes: boolean
  /** What becomes of those that were woken. */
  readonly after: AfterReading
  /** Where else results lie: asked before a sandbox is killed. */
  readonly others: readonly ResultStore[]
}

interface Part {
  readonly body: ReadableStream<Uint8Array>
  readonly visit: Visit
  readonly id: string
}

/** Results in sandboxes of a task that other processes started, found by their metadata when somebody asks for something. */
export class FoundSandboxStore implements ResultStore {
  readonly tier = 'sandbox'
  readonly lastResort = true
  readonly name: string
  readonly #options: FoundSandboxOptions
  /** Keys whose bytes were read here to the end. */
  readonly #read = new Set<string>()

  constructor(options: FoundSandboxOptions) {
    this.#options = options
    this.name = `sandbox of ${options.taskId}`
  }

  async *list(
    taskId: string,
    { signal, startAfter = '' }: ListOptions = {},
  ): AsyncGenerator<StoredEntry, void, undefined> {
    assertTaskId(taskId)
    const byKey = new Map<string, ResultRecord>()
    const errors = await this.#inEach({ signal }, async (spool) => {
      for (const record of await spool.records(taskId, { signal })) {
        if (!byKey.has(record.key)) byKey.set(record.key, record)
      }
      return false
    })
    const records = [...byKey.values()].sort((a, b) => compareKeys(a.key, b.key))
    for (const record of records) {
      if (compareKeys(record.key, startAfter) <= 0) continue
      yield { key: record.key, size: record.size, description: describeRecord(record) }
    }
    // What could be read came first; that something could not must not go unheard.
    if (errors[0] !== undefined) throw errors[0]
  }

  async describe(key: string, { signal }: CallOptions = {}): Promise<ResultDescription | undefined> {
    assertKey(key)
    let found: ResultDescription | undefined
    const errors = await this.#inEach({ signal }, async (spool) => {
      found = await spool.describe(key, { signal })
      return found !== undefined
    })
    if (found === undefined && errors[0] !== undefined) throw errors[0]
    return found
  }

  async open(key: string, { signal, offset = 0 }: OpenOptions = {}): Promise<ReadableStream<Uint8Array>> {
    assertKey(key)
    const first = await this.#openPart(key, { signal, offset })
    const chunks = this.#chunks(first, key, { signal, offset })
    let started = false
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          started = true
          const next = await chunks.next()
          if (next.done) controller.close()
          else controller.enqueue(next.value)
        },
        async cancel(reason) {
          if (started) return void (await chunks.return(undefined))
          first.visit.leave()
          await first.body.cancel(reason)
        },
      },
      { highWaterMark: 0 },
    )
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<boolean> {
    assertKey(key)
    let deleted = false
    const errors = await this.#inEach({ signal }, async (spool) => {
      if (await spool.delete(key, { signal })) deleted = true
      return false
    })
    if (errors[0] !== undefined) throw errors[0]
    return deleted
  }

  /** The bytes, from the same place on when the sandbox is put to sleep in between. */
  async *#chunks(
    first: Part,
    key: string,
    { signal, offset }: { signal: AbortSignal | undefined; offset: number },
  ): AsyncGenerator<Uint8Array, void, undefined> {
    let part = first
    let at = offset
    for (let wakes = 0; ; wakes++) {
      try {
        for await (const chunk of readChunks(part.body)) {
          at += chunk.length
          yield chunk
        }
        if (offset === 0) this.#read.add(key)
        return
      } catch (error) {
        if (!this.#mayWake(error, wakes)) throw error
        this.#options.visits.forget(part.id, part.visit.sandbox)
      } finally {
        part.visit.leave()
      }
      part = await this.#openPart(key, { signal, offset: at })
    }
  }

  async #openPart(key: string, options: OpenOptions): Promise<Part> {
    let part: Part | undefined
    const errors = await this.#inEach(options, async (spool, id, hold) => {
      try {
        const body = await spool.open(key, options)
        part = { id, body, visit: hold() }
        return true
      } catch (error) {
        if (isConductorError(error) && error.code === 'NOT_FOUND') return false
        throw error
      }
    })
    if (part !== undefined) return part
    throw errors[0] ?? new ConductorError('NOT_FOUND', `${key} is in no sandbox`)
  }

  /**
   * Goes through the task's sandboxes until one has what was looked for. Gives back what kept others from being read; those
   * that are gone have nothing any more.
   */
  async #inEach(
    { signal }: CallOptions,
    look: (spool: SpoolStore, id: string, hold: () => Visit) => Promise<boolean>,
  ): Promise<ConductorError[]> {
    const errors: ConductorError[] = []
    for await (const { id } of this.#options.find({ signal })) {
      try {
        if (await this.#visit(id, signal, look)) return []
      } catch (error) {
        if (!isConductorError(error)) throw error
        errors.push(error)
      }
    }
    return errors
  }

  async #visit(
    id: string,
    signal: AbortSignal | undefined,
    look: (spool: SpoolStore, id: string, hold: () => Visit) => Promise<boolean>,
  ): Promise<boolean> {
    const { visits, resumes, after } = this.#options
    for (let wakes = 0; ; wakes++) {
      const visit = await visits.enter(id, {
        resumes,
        after,
        mayKill: (sandbox) => this.#mayKill(sandbox),
        signal,
      })
      let held = false
      const hold = (): Visit => {
        held = true
        return visit
      }
      try {
        return await look(this.#spoolOf(visit.sandbox), id, hold)
      } catch (error) {
        const sleeps = this.#mayWake(error, wakes)
        if (sleeps || (isConductorError(error) && error.code === 'SANDBOX_GONE'))
          visits.forget(id, visit.sandbox)
        if (!sleeps) throw error
      } finally {
        if (!held) visit.leave()
      }
    }
  }

  #spoolOf(sandbox: RemoteSandbox): SpoolStore {
    const files = new SandboxFiles(sandbox, this.#options.localDir)
    return new SpoolStore(`sandbox ${sandbox.id}`, 'sandbox', files)
  }

  #mayWake(error: unknown, wakes: number): boolean {
    return (
      isConductorError(error) && error.code === 'SANDBOX_PAUSED' && this.#options.resumes && wakes < MAX_WAKES
    )
  }

  /** Whether everything in a sandbox was read here to the end, or lies elsewhere with the same digest. */
  async #mayKill(sandbox: RemoteSandbox): Promise<boolean> {
    const { taskId, others } = this.#options
    for (const record of await this.#spoolOf(sandbox).records(taskId)) {
      if (!this.#read.has(record.key) && !(await isKept(record, others))) return false
    }
    return true
  }
}

async function isKept({ key, size, sha256 }: ResultRecord, stores: readonly ResultStore[]): Promise<boolean> {
  for (const store of stores) {
    try {
      const there = await store.describe(key)
      if (there?.sha256 === sha256 && there.size === size) return true
    } catch (error) {
      // A place that cannot tell vouches for nothing.
      if (!isConductorError(error)) throw error
    }
  }
  return false
}
