import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { Sandbox } from 'e2b'
import { mintGrant } from '../../src/grants/mint-grant.js'
import { openS3Location, type S3Options } from '../../src/stores/s3/s3-location.js'
import type { WorkerPlan } from './plan.js'
import { Dice } from './random.js'
import { fillDisk, type World } from './world.js'

/** A worker that may be hit. */
export interface Victim {
  readonly taskId: string
  readonly sandboxId: string
  /** Which of its sandboxes this is. */
  readonly life: number
  readonly plan: WorkerPlan
}

/** What the adversary may hit besides the servers. */
export interface Targets {
  /** Workers whose command runs. */
  running(): readonly Victim[]
  /** The sandbox is about to be destroyed. */
  vanished(victim: Victim): void
  readonly conductor: {
    /** SIGKILL, and a new one that recovers; undefined where conductors cannot. */
    readonly replace: (() => Promise<void>) | undefined
    signal(signal: 'SIGSTOP' | 'SIGCONT'): void
  }
}

const ACTIONS = [
  'kill S3',
  'kill HTTP',
  'freeze S3',
  'freeze HTTP',
  'cut S3',
  'cut HTTP',
  'cut both',
  'cut E2B',
  'vanish sandbox',
  'pause sandbox',
  'expire grant',
  'fill disk',
  'kill conductor',
  'freeze conductor',
] as const
type Action = (typeof ACTIONS)[number]

const WEIGHTS: Readonly<Record<Action, number>> = {
  'kill S3': 12,
  'kill HTTP': 8,
  'freeze S3': 5,
  'freeze HTTP': 5,
  'cut S3': 12,
  'cut HTTP': 8,
  'cut both': 10,
  'cut E2B': 8,
  'vanish sandbox': 10,
  'pause sandbox': 10,
  'expire grant': 10,
  'fill disk': 8,
  'kill conductor': 8,
  'freeze conductor': 4,
}

/** Breaks what is around the workers. Its decisions come from the seed; whom they hit, and when, depends on timing. */
export class Adversary {
  readonly #seed: number
  readonly #world: World
  readonly #targets: Targets
  readonly #busy = new Map<string, Promise<void>>()
  readonly faults: Record<string, number> = {}
  readonly notDone = new Map<string, string>()
  #outcomes = 0
  #actions = 0
  #nextAt: number
  #over = false

  constructor(seed: number, world: World, targets: Targets) {
    this.#seed = seed
    this.#world = world
    this.#targets = targets
    this.#nextAt = this.#pause()
  }

  /** Called with each outcome: time is counted in what workers get done, so that a seed means much the same on any machine. */
  tick(): void {
    if (this.#over || ++this.#outcomes < this.#nextAt) return
    this.#actions++
    this.#nextAt = this.#outcomes + this.#pause()
    const dice = new Dice(this.#seed, 'action', this.#actions)
    const action = dice.weighted(ACTIONS.map((name) => [name, WEIGHTS[name]] as const))
    const thing = thingOf(action)
    // What is broken already is not broken again at the same time.
    if (this.#busy.has(thing)) return
    const doing = this.#do(action, dice)
      .catch((error: unknown) => {
        // What it was to hit may have ended, or be cut off by another fault; a server that does not come back is seen anyway.
        const line = String(error).split('\n')[0]
        this.notDone.set(`${action} (once or more)`, line ?? '')
      })
      .finally(() => this.#busy.delete(thing))
    this.#busy.set(thing, doing)
  }

  /** Starts nothing more and waits until all is whole again. */
  async end(): Promise<void> {
    this.#over = true
    await Promise.all(this.#busy.values())
  }

  #pause(): number {
    return new Dice(this.#seed, 'pause', this.#actions).between(8, 30)
  }

  #count(action: Action): void {
    this.faults[action] = (this.faults[action] ?? 0) + 1
  }

  async #do(action: Action, dice: Dice): Promise<void> {
    const { s3, s3Proxy, e2bProxy, endpoint, endpointProxy } = this.#world
    const forMs = dice.between(100, 2_500)
    switch (action) {
      case 'kill S3':
        this.#count(action)
        await s3.kill()
        await delay(forMs / 3)
        await s3.restart()
        this.#world.repoint()
        return
      case 'kill HTTP':
        this.#count(action)
        await endpoint.kill()
        await delay(forMs / 3)
        await this.#world.restartEndpoint()
        this.#world.repoint()
        return
      case 'freeze S3':
        if (s3.freeze === undefined) {
          this.notDone.set(action, 'Ceph keeps its daemons behind a guard that takes no signals')
          return
        }
        this.#count(action)
        s3.freeze(true)
        await delay(forMs)
        s3.freeze(false)
        return
      case 'freeze HTTP':
        this.#count(action)
        endpoint.signal('SIGSTOP')
        await delay(forMs)
        endpoint.signal('SIGCONT')
        return
      case 'cut S3':
      case 'cut HTTP':
      case 'cut both': {
        this.#count(action)
        const proxies = [
          ...(action === 'cut HTTP' ? [] : [s3Proxy]),
          ...(action === 'cut S3' ? [] : [endpointProxy]),
        ]
        for (const proxy of proxies) proxy.cut()
        await delay(forMs)
        for (const proxy of proxies) proxy.restore()
        return
      }
      case 'cut E2B':
        this.#count(action)
        e2bProxy.cut()
        await delay(forMs)
        e2bProxy.restore()
        return
      case 'freeze conductor':
        this.#count(action)
        this.#targets.conductor.signal('SIGSTOP')
        await delay(forMs)
        this.#targets.conductor.signal('SIGCONT')
        return
      case 'kill conductor':
        if (this.#targets.conductor.replace === undefined) {
          this.notDone.set(action, 'conductors cannot recover')
          return
        }
        this.#count(action)
        await this.#targets.conductor.replace()
        return
      default:
        return await this.#hitWorker(action, dice, forMs)
    }
  }

  async #hitWorker(
    action: 'vanish sandbox' | 'pause sandbox' | 'expire grant' | 'fill disk',
    dice: Dice,
    forMs: number,
  ): Promise<void> {
    const fits = (victim: Victim): boolean => {
      const { kind, expendable } = victim.plan
      if (action === 'vanish sandbox') return kind === 'remote' || kind === 'volume' || expendable
      if (action === 'fill disk') return kind === 'volume'
      return action === 'pause sandbox' || kind !== 'keys'
    }
    const victims = this.#targets.running().filter(fits)
    const victim = victims[dice.between(0, victims.length - 1)]
    if (victim === undefined) return
    if (action === 'fill disk' && this.#world.noSmallDisks !== undefined) {
      this.notDone.set(action, this.#world.noSmallDisks)
      return
    }
    const { taskId, sandboxId } = victim
    const { e2b } = this.#world
    if (action === 'vanish sandbox') {
      this.#targets.vanished(victim)
      this.#count(action)
      await Sandbox.kill(sandboxId, e2b)
    } else if (action === 'pause sandbox') {
      // It may have ended just now; then nothing was done to it.
      if (await goneIsFalse(Sandbox.pause(sandboxId, e2b))) this.#count(action)
    } else if (action === 'fill disk') {
      const content = this.#world.volumes.get(volumeOf(taskId))
      if (content === undefined) return
      this.#count(action)
      const ballast = await fillDisk(content, (6 << 20) - dice.between(0, 40_000))
      await delay(forMs)
      await rm(ballast, { force: true })
    } else if (await goneIsFalse(this.#expireGrant(victim, forMs))) this.#count(action)
  }

  /** Puts a grant in its place that is about to expire, and after a while the good one again. */
  async #expireGrant({ taskId, sandboxId }: Victim, forMs: number): Promise<boolean> {
    const sandbox = await Sandbox.connect(sandboxId, this.#world.e2b)
    const path = `/workspace/.results/.worker/${taskId}/grant.json`
    const good = await sandbox.files.read(path, { user: 'root' })
    const s3 = openS3Location(this.#world.conductorOptions.s3 as S3Options)
    try {
      const grant = await mintGrant({
        taskId,
        expiresAt: new Date(Date.now() + 1_000),
        s3,
        maxResultBytes: 1 << 30,
      })
      await sandbox.files.write(path, JSON.stringify(grant))
      await delay(1_000 + forMs)
      await sandbox.files.write(path, good)
    } finally {
      s3.close()
    }
    return true
  }
}

/** Name of a task's volume. */
export function volumeOf(taskId: string): string {
  return `disk-${taskId}`
}

/** What an action breaks; different things may be broken at the same time. */
function thingOf(action: Action): string {
  if (action.includes('conductor')) return 'conductor'
  if (action.includes('S3') || action === 'cut both') return 's3'
  if (action.includes('HTTP')) return 'http'
  if (action.includes('E2B')) return 'e2b'
  return action
}

/** False when what was to be hit had ended before. */
async function goneIsFalse(hit: Promise<unknown>): Promise<boolean> {
  try {
    await hit
    return true
  } catch (error) {
    if (!(error instanceof Error)) throw error
    if (/NotFound/.test(error.name) || /not ?found|paused/i.test(error.message)) return false
    throw error
  }
}
