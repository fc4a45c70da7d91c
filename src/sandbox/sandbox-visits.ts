import { type ConnectionOpts, Sandbox, SandboxNotFoundError } from 'e2b'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { KeyLock } from '../key-lock.js'
import { E2bSandbox } from './e2b-sandbox.js'
import { type E2bOptions, toConnectionOpts } from './e2b-sandboxes.js'
import { mapSandboxError } from './map-sandbox-error.js'
import type { RemoteSandbox } from './remote-sandbox.js'

/** What becomes of a sandbox that was resumed only to be read, once nobody reads it any more. */
export type AfterReading = 'pause' | 'kill' | 'leave'

/** Time a visited sandbox gets, renewed while it is read: should this process die, E2B pauses it again that soon. */
const VISIT_MS = 60_000
/** Pausing writes its whole memory out, which for large sandboxes takes longer than other requests. */
const PAUSE_TIMEOUT_MS = 120_000
/** An end later than asked for by more than this was set by somebody else. */
const CLOCK_SLACK_MS = 5_000

/** How to visit. */
export interface VisitOptions extends CallOptions {
  /** Whether it may be woken; rejects with `SANDBOX_PAUSED` otherwise. */
  readonly resumes: boolean
  readonly after: AfterReading
  /** Asked before it is killed: whether that destroys nothing. */
  readonly mayKill: (sandbox: RemoteSandbox) => Promise<boolean>
}

/** What all visits have in common. */
export interface VisitSettings {
  /** How long a sandbox that was woken stays awake after its last reader, for the next one, in milliseconds. @default 5000 */
  readonly lingerMs?: number | undefined
  /** Told of a sandbox that was not left as it should have been; nobody is waiting for that. @default prints a warning */
  readonly onProblem?: ((error: ConductorError) => void) | undefined
}

/** A sandbox that is being read. */
export interface Visit {
  readonly sandbox: RemoteSandbox
  /** Must be called once, when the reader is done. */
  leave(): void
}

interface Open {
  readonly sandbox: RemoteSandbox
  /** Whether it was asleep and nobody else has had a hand in it since. */
  ours: boolean
  /** By E2B's clock. Whatever else it turns into is somebody else's doing. */
  endAtMs: number
  visitors: number
  after: AfterReading
  mayKill: VisitOptions['mayKill']
  readonly renewal: NodeJS.Timeout
  lingering: NodeJS.Timeout | undefined
}

/**
 * Sandboxes of other processes that are read by this one. Sleeping ones are woken for the first reader and put back after the
 * last, unless somebody else has taken them up meanwhile; running ones stay as they are.
 */
export class SandboxVisits {
  readonly #connection: ConnectionOpts
  readonly #lingerMs: number
  readonly #onProblem: (error: ConductorError) => void
  readonly #open = new Map<string, Open>()
  /** Waking and putting back one sandbox must not overlap. */
  readonly #turns = new KeyLock()
  readonly #puttingBack = new Set<Promise<void>>()

  constructor(options: E2bOptions, settings: VisitSettings = {}) {
    this.#connection = toConnectionOpts(options)
    this.#lingerMs = settings.lingerMs ?? 5_000
    this.#onProblem = settings.onProblem ?? ((error) => process.emitWarning(error))
  }

  /** Connects, waking it if it sleeps; rejects with `SANDBOX_GONE` when it no longer exists. */
  async enter(id: string, options: VisitOptions): Promise<Visit> {
    options.signal?.throwIfAborted()
    const open = await this.#turns.run(id, async () => {
      const open = this.#open.get(id) ?? (await this.#wake(id, options))
      this.#open.set(id, open)
      clearTimeout(open.lingering)
      open.lingering = undefined
      open.visitors += 1
      open.after = gentler(open.after, options.after)
      open.mayKill = options.mayKill
      return open
    })
    let left = false
    return {
      sandbox: open.sandbox,
      leave: () => {
        if (left) return
        left = true
        open.visitors -= 1
        if (open.visitors === 0) this.#linger(id, open)
      },
    }
  }

  /** Forgets what is known of a sandbox that turned out to be paused or gone; the next reader connects anew. */
  forget(id: string, sandbox: RemoteSandbox): void {
    const open = this.#open.get(id)
    if (open === undefined || open.sandbox !== sandbox) return
    this.#open.delete(id)
    end(open)
  }

  /** Puts back everything that is not being read, without lingering. What is still being read is E2B's to pause. */
  async close(): Promise<void> {
    for (const [id, open] of [...this.#open]) {
      if (open.visitors === 0) this.#putBackInTurn(id, open)
      else this.forget(id, open.sandbox)
    }
    await Promise.all(this.#puttingBack)
  }

  async #wake(id: string, { resumes, after, mayKill, signal }: VisitOptions): Promise<Open> {
    const before = await this.#info(id, signal)
    const wasPaused = before.state === 'paused'
    if (wasPaused && !resumes) {
      throw new ConductorError('SANDBOX_PAUSED', `sandbox ${id} is paused, and was not to be woken`)
    }
    const sandbox = await this.#connect(id, signal)
    const { endAt } = wasPaused ? await this.#info(id, signal) : before
    // Connecting never shortens the time it has: a later end is that of somebody who woke it first.
    const ours = wasPaused && endAt.getTime() <= Date.now() + VISIT_MS + CLOCK_SLACK_MS
    const renewal = setInterval(() => void this.#renew(id), VISIT_MS / 3)
    renewal.unref()
    return {
      sandbox,
      ours,
      endAtMs: endAt.getTime(),
      visitors: 0,
      after,
      mayKill,
      renewal,
      lingering: undefined,
    }
  }

  #linger(id: string, open: Open): void {
    if (this.#open.get(id) !== open) return
    if (!open.ours) {
      this.forget(id, open.sandbox)
      return
    }
    open.lingering = setTimeout(() => this.#putBackInTurn(id, open), this.#lingerMs)
    open.lingering.unref()
  }

  #putBackInTurn(id: string, open: Open): void {
    const work = this.#turns.run(id, () => this.#putBack(id, open))
    this.#puttingBack.add(work)
    void work.finally(() => this.#puttingBack.delete(work))
  }

  async #renew(id: string): Promise<void> {
    const open = this.#open.get(id)
    if (open === undefined || open.visitors === 0) return
    try {
      if (open.ours && (await this.#info(id)).endAt.getTime() !== open.endAtMs) open.ours = false
      await open.sandbox.resume(VISIT_MS)
      if (open.ours) open.endAtMs = (await this.#info(id)).endAt.getTime()
    } catch (error) {
      // Tried again by the next tick; its reader hears of what is wrong by itself.
      if (!isConductorError(error)) throw error
    }
  }

  async #putBack(id: string, open: Open): Promise<void> {
    if (open.visitors > 0 || this.#open.get(id) !== open) return
    this.forget(id, open.sandbox)
    try {
      const { state, endAt } = await this.#info(id)
      // Paused by its timeout, or taken up by somebody who gave it more time: no longer ours to end.
      if (!open.ours || state === 'paused' || endAt.getTime() !== open.endAtMs || open.after === 'leave')
        return
      if (open.after === 'kill' && (await this.#mayKill(id, open))) await open.sandbox.kill()
      else await Sandbox.pause(id, { ...this.#connection, requestTimeoutMs: PAUSE_TIMEOUT_MS })
    } catch (error) {
      if (error instanceof SandboxNotFoundError) return
      const mapped = mapSandboxError(error, `put sandbox ${id} back to sleep`)
      if (!isConductorError(mapped)) throw mapped
      // E2B does it in a minute at the latest: that is all the time it was given.
      if (mapped.code !== 'SANDBOX_GONE') this.#onProblem(mapped)
    }
  }

  async #mayKill(id: string, { sandbox, mayKill }: Open): Promise<boolean> {
    if (await mayKill(sandbox)) return true
    this.#onProblem(
      new ConductorError(
        'UNDELIVERED',
        `sandbox ${id} was paused and not killed: it holds results that were not read`,
      ),
    )
    return false
  }

  async #connect(id: string, signal: AbortSignal | undefined): Promise<RemoteSandbox> {
    return this.#call(`connect to sandbox ${id}`, signal, async (options) => {
      return new E2bSandbox(await Sandbox.connect(id, { ...options, timeoutMs: VISIT_MS }))
    })
  }

  async #info(id: string, signal?: AbortSignal): Promise<{ state: string; endAt: Date }> {
    return this.#call(`ask for sandbox ${id}`, signal, (options) => Sandbox.getInfo(id, options))
  }

  async #call<T>(
    doing: string,
    signal: AbortSignal | undefined,
    call: (options: ConnectionOpts & { signal?: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    try {
      return await call({ ...this.#connection, ...(signal === undefined ? {} : { signal }) })
    } catch (error) {
      throw mapSandboxError(error, doing, signal)
    }
  }
}

/** What several readers want becomes what does least. */
function gentler(a: AfterReading, b: AfterReading): AfterReading {
  return ['leave', 'pause', 'kill'].indexOf(a) < ['leave', 'pause', 'kill'].indexOf(b) ? a : b
}

function end(open: Open): void {
  clearInterval(open.renewal)
  clearTimeout(open.lingering)
}
