import { FileMetadata } from '../files/file-metadata.js'
import type { JailMaker, JailSpec } from '../jail/jail.js'
import { RequestError } from '../request-error.js'
import { Alarm } from './alarm.js'
import { LiveSandbox, OpenRequests } from './live-sandbox.js'
import type { Metric } from './metrics.js'

/** A volume as it was asked for and where it lies. */
export interface SandboxVolume {
  readonly name: string
  readonly path: string
}

/** What a sandbox is made with; none of it changes later. */
export interface SandboxConfig {
  readonly id: string
  readonly templateId: string
  readonly accessToken: string
  readonly metadata: Readonly<Record<string, string>>
  readonly envs: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly onTimeout: 'kill' | 'pause'
  /** Whether processes survive when the timeout pauses. */
  readonly keepMemory: boolean
  readonly autoResume: boolean
  readonly allowInternetAccess: boolean | undefined
  readonly network: unknown
  readonly volumes: readonly SandboxVolume[]
}

type State = 'running' | 'paused' | 'killed'

/** One sandbox from its creation to its end. Changes of state happen one after another. */
export class Sandbox {
  readonly config: SandboxConfig
  readonly startedAt = new Date()
  readonly fileMetadata = new FileMetadata()
  readonly requests = new OpenRequests()
  readonly #maker: JailMaker
  readonly #jailSpec: JailSpec
  readonly #onGone: () => Promise<void>
  readonly #alarm: Alarm
  #live: LiveSandbox | undefined
  #state: State = 'running'
  #endAt: Date
  #timeoutMs: number
  #lastChange: Promise<unknown> = Promise.resolve()

  private constructor(
    config: SandboxConfig,
    maker: JailMaker,
    jailSpec: JailSpec,
    handlers: { onTimeout: (sandbox: Sandbox) => void; onGone: () => Promise<void> },
  ) {
    this.config = config
    this.#maker = maker
    this.#jailSpec = jailSpec
    this.#onGone = handlers.onGone
    this.#timeoutMs = config.timeoutMs
    this.#endAt = new Date(Date.now() + config.timeoutMs)
    this.#alarm = new Alarm(() => handlers.onTimeout(this))
  }

  /**
   * Starts a sandbox. `onTimeout` is called at its end of life, which is then up to the owner; `onGone` once it is killed or has died
   * by itself.
   */
  static async start(
    config: SandboxConfig,
    maker: JailMaker,
    jailSpec: JailSpec,
    handlers: { onTimeout: (sandbox: Sandbox) => void; onGone: () => Promise<void> },
  ): Promise<Sandbox> {
    const sandbox = new Sandbox(config, maker, jailSpec, handlers)
    await sandbox.#enliven()
    sandbox.#setEnd(config.timeoutMs)
    return sandbox
  }

  get state(): State {
    return this.#state
  }

  /** When the timeout strikes; for a paused one, when it was paused. */
  get endAt(): Date {
    return this.#endAt
  }

  get rootFolder(): string {
    return this.#jailSpec.rootFolder
  }

  /** The processes and files; `unavailable` while there are none. */
  live(): LiveSandbox {
    if (this.#state !== 'running' || this.#live === undefined) {
      throw new RequestError('unavailable', 'The sandbox was not found')
    }
    return this.#live
  }

  /** What it has used, with a sample of right now while it runs. */
  async metrics(): Promise<readonly Metric[]> {
    if (this.#state === 'running') await this.#live?.metrics.sample()
    return this.#live?.metrics.samples ?? []
  }

  /** Moves the end to so long from now, also to earlier. Refused while paused. */
  setTimeout(timeoutMs: number): void {
    if (this.#state !== 'running')
      throw new RequestError('not_found', `Sandbox ${this.config.id} is not running`)
    this.#setEnd(timeoutMs)
  }

  /** Stops it where it is. Without memory only the files stay. False when it is paused already. */
  pause(keepMemory: boolean): Promise<boolean> {
    return this.#change(async () => {
      this.#refuseKilled()
      if (this.#state === 'paused') return false
      this.#alarm.stop()
      this.#state = 'paused'
      this.#endAt = new Date()
      this.requests.cut()
      if (keepMemory) await this.#live?.freeze()
      else await this.#dropLive()
      return true
    })
  }

  /** Lets a paused one run on, or prolongs a running one, never shortening; true when it was paused. */
  resume(timeoutMs: number | undefined, keepMemory = true): Promise<boolean> {
    return this.#change(async () => {
      this.#refuseKilled()
      const nextMs = timeoutMs ?? this.#timeoutMs
      if (this.#state === 'running') {
        if (Date.now() + nextMs > this.#endAt.getTime()) this.#setEnd(nextMs)
        return false
      }
      if (!keepMemory) await this.#dropLive()
      if (this.#live === undefined) await this.#enliven()
      else await this.#live.jail.thaw()
      this.#state = 'running'
      this.#setEnd(nextMs)
      return true
    })
  }

  /** Whether traffic may wake it: asked for, and its processes are still there. */
  get wakesOnTraffic(): boolean {
    return this.#state === 'paused' && this.config.autoResume && this.#live !== undefined
  }

  /** Ends it with everything in it; false when that has happened before. */
  kill(): Promise<boolean> {
    return this.#change(async () => {
      if (this.#state === 'killed') return false
      this.#state = 'killed'
      this.#alarm.stop()
      this.requests.cut()
      await this.#dropLive()
      await this.#onGone()
      return true
    })
  }

  #refuseKilled(): void {
    if (this.#state === 'killed') throw new RequestError('not_found', `Sandbox ${this.config.id} not found`)
  }

  async #enliven(): Promise<void> {
    const live = new LiveSandbox(await this.#maker.make(this.#jailSpec), this.rootFolder)
    this.#live = live
    void live.jail.dead.then(() => {
      // Died by itself, for lack of memory or by a stranger's hand: for its clients that is a kill.
      if (this.#live === live) void this.kill()
    })
  }

  async #dropLive(): Promise<void> {
    const live = this.#live
    this.#live = undefined
    await live?.end()
  }

  #setEnd(timeoutMs: number): void {
    this.#timeoutMs = timeoutMs
    this.#endAt = new Date(Date.now() + timeoutMs)
    this.#alarm.set(this.#endAt)
  }

  #change<T>(change: () => Promise<T>): Promise<T> {
    const next = this.#lastChange.then(change, change)
    this.#lastChange = next.catch(() => {})
    return next
  }
}
