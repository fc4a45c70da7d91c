import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { Sandbox } from 'e2b'
import { mintGrant } from '../../src/grants/mint-grant.js'
import { openS3Location, type S3Options } from '../../src/stores/s3/s3-location.js'
import type { TcpProxy } from '../support/proxy.js'
import type { WorkerPlan } from './plan.js'
import type { Dice } from './random.js'
import { DISK_BYTES, fillDisk, type World } from './world.js'

/** A fault that nobody has felt yet goes on for so long more, and is looked at so often. */
const LONGEST_MORE_MS = 4_000
const LOOK_EVERY_MS = 50

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
  /** The sandbox is about to be destroyed; undone with false where it was gone already. */
  vanished(victim: Victim, is: boolean): void
  readonly conductor: {
    /** SIGKILL, and a new one that recovers. */
    replace(): Promise<void>
    signal(signal: 'SIGSTOP' | 'SIGCONT'): void
    /** Ends the worker whatever becomes of its results; resolves with whether it did. */
    forceKill(victim: Victim): Promise<boolean>
    /** Lets another conductor meddle with a worker while this one has it; resolves with whether it did. */
    meddle(victim: Victim, dice: Dice): Promise<boolean>
  }
}

/** One kind of fault of what is around the workers. */
export interface Move {
  readonly weight: number
  /** What it breaks; what is broken already is not broken again at the same time. */
  readonly things: readonly string[]
  /** Breaks it, and makes it whole again; resolves with whether anybody can have felt it. */
  do(world: World, targets: Targets, dice: Dice): Promise<boolean>
}

/** All that an adversary can do, by name. */
export const MOVES = {
  'kill S3': {
    weight: 12,
    things: ['s3'],
    do: async (world, _, dice) => {
      const isFelt = visitorsOf(world.s3Proxy)
      await world.s3.kill()
      const hits = await last(dice, isFelt)
      await world.s3.restart()
      world.repoint()
      return hits
    },
  },
  'freeze S3': {
    weight: 5,
    things: ['s3'],
    do: async (world, _, dice) => {
      world.s3.freeze?.(true)
      const hits = await last(dice, visitorsOf(world.s3Proxy))
      world.s3.freeze?.(false)
      return hits
    },
  },
  'cut S3': {
    weight: 12,
    things: ['s3'],
    do: ({ s3Proxy }, _, dice) => cut([s3Proxy], dice),
  },
  // Nobody goes to the endpoint while there is S3.
  'kill HTTP': {
    weight: 8,
    things: ['s3', 'http'],
    do: (world, _, dice) =>
      withoutS3(world, async () => {
        await world.endpoint.kill()
        const hits = await last(dice, visitorsOf(world.endpointProxy))
        await world.restartEndpoint()
        world.repoint()
        return hits
      }),
  },
  'freeze HTTP': {
    weight: 5,
    things: ['s3', 'http'],
    do: (world, _, dice) =>
      withoutS3(world, async () => {
        world.endpoint.signal('SIGSTOP')
        const hits = await last(dice, visitorsOf(world.endpointProxy))
        world.endpoint.signal('SIGCONT')
        return hits
      }),
  },
  'cut both': {
    weight: 18,
    things: ['s3', 'http'],
    do: ({ s3Proxy, endpointProxy }, _, dice) => cut([s3Proxy, endpointProxy], dice),
  },
  'cut E2B': {
    weight: 8,
    things: ['e2b'],
    do: ({ e2bProxy }, _, dice) => cut([e2bProxy], dice),
  },
  'vanish sandbox': {
    weight: 10,
    things: ['sandbox'],
    do: async ({ e2b }, targets, dice) => {
      const victim = choose(targets, dice, ({ kind, expendable }) =>
        kind === 'grant' ? expendable : kind !== 'keys',
      )
      if (victim === undefined) return false
      targets.vanished(victim, true)
      const was = await Sandbox.kill(victim.sandboxId, e2b)
      if (!was) targets.vanished(victim, false)
      return was
    },
  },
  'pause sandbox': {
    weight: 10,
    things: ['pause'],
    do: async ({ e2b }, targets, dice) => {
      const victim = choose(targets, dice)
      return victim !== undefined && (await goneIsFalse(Sandbox.pause(victim.sandboxId, e2b)))
    },
  },
  'expire grant': {
    weight: 10,
    things: ['grant'],
    do: async (world, targets, dice) => {
      const victim = choose(targets, dice, ({ kind }) => kind !== 'keys')
      return victim !== undefined && (await goneIsFalse(expireGrant(world, victim, dice)))
    },
  },
  'fill disk': {
    weight: 8,
    things: ['disk'],
    do: async (world, targets, dice) => {
      const victim = choose(targets, dice, ({ kind }) => kind === 'volume')
      const content = victim && world.volumes.get(volumeOf(victim.taskId))
      if (victim === undefined || content === undefined) return false
      const ballast = await fillDisk(content, DISK_BYTES - dice.between(0, 40_000))
      const isMet = await last(dice, doingsOf(world, victim))
      await rm(ballast, { force: true })
      return isMet
    },
  },
  'kill conductor': {
    weight: 8,
    things: ['conductor'],
    do: async (_, targets) => {
      const isBusy = targets.running().length > 0
      await targets.conductor.replace()
      return isBusy
    },
  },
  'freeze conductor': {
    weight: 4,
    things: ['conductor'],
    do: async (_, targets, dice) => {
      const isBusy = targets.running().length > 0
      targets.conductor.signal('SIGSTOP')
      await delay(duration(dice))
      targets.conductor.signal('SIGCONT')
      return isBusy
    },
  },
  'force kill': {
    weight: 4,
    things: ['force kill'],
    do: async (_, targets, dice) => {
      const victim = choose(targets, dice)
      return victim !== undefined && (await targets.conductor.forceKill(victim))
    },
  },
  'second conductor': {
    weight: 6,
    things: ['second conductor'],
    do: async (_, targets, dice) => {
      const victim = choose(targets, dice)
      return victim !== undefined && (await targets.conductor.meddle(victim, dice))
    },
  },
} as const satisfies Readonly<Record<string, Move>>

/** Name of a move. */
export type Action = keyof typeof MOVES

/** Name of a task's volume. */
export function volumeOf(taskId: string): string {
  return `disk-${taskId}`
}

function duration(dice: Dice): number {
  return dice.between(100, 2_500)
}

function choose(targets: Targets, dice: Dice, fits: (plan: WorkerPlan) => boolean = () => true) {
  const victims = targets.running().filter(({ plan }) => fits(plan))
  return victims[dice.between(0, victims.length - 1)]
}

/** Goes on for a while, and on until somebody has felt it, but not for ever; resolves with whether anybody has. */
async function last(dice: Dice, isFelt: () => boolean): Promise<boolean> {
  await delay(duration(dice))
  for (let i = 0; i < LONGEST_MORE_MS / LOOK_EVERY_MS && !isFelt(); i++) await delay(LOOK_EVERY_MS)
  return isFelt()
}

/** Whether anybody has come to servers since now. */
function visitorsOf(...proxies: readonly TcpProxy[]): () => boolean {
  const count = (): number => proxies.reduce((sum, { taken }) => sum + taken, 0)
  const before = count()
  return () => count() > before
}

/** Whether a worker has done anything since now. */
function doingsOf({ ledger }: World, { taskId }: Victim): () => boolean {
  const before = ledger.outcomes.length
  return () => ledger.outcomes.slice(before).some((outcome) => outcome.taskId === taskId)
}

async function cut(proxies: readonly TcpProxy[], dice: Dice): Promise<boolean> {
  const breaks = proxies.some(({ open }) => open > 0)
  const isFelt = visitorsOf(...proxies)
  for (const proxy of proxies) proxy.cut()
  try {
    return await last(dice, () => breaks || isFelt())
  } finally {
    for (const proxy of proxies) proxy.restore()
  }
}

async function withoutS3({ s3Proxy }: World, outage: () => Promise<boolean>): Promise<boolean> {
  s3Proxy.cut()
  try {
    return await outage()
  } finally {
    s3Proxy.restore()
  }
}

/** Puts a grant in its place that is about to expire, and after a while the good one again. */
async function expireGrant(world: World, victim: Victim, dice: Dice): Promise<boolean> {
  const { taskId, sandboxId } = victim
  const sandbox = await Sandbox.connect(sandboxId, world.e2b)
  const path = `/workspace/.results/.worker/${taskId}/grant.json`
  const good = await sandbox.files.read(path, { user: 'root' })
  const s3 = openS3Location(world.conductorOptions.s3 as S3Options)
  try {
    const expiresAt = new Date(Date.now() + 1_000)
    const grant = await mintGrant({ taskId, expiresAt, s3, maxResultBytes: 1 << 30 })
    await sandbox.files.write(path, JSON.stringify(grant))
    await delay(1_000)
    const isMet = await last(dice, doingsOf(world, victim))
    await sandbox.files.write(path, good)
    return isMet
  } finally {
    s3.close()
  }
}

/** False when what was to be hit had ended before. */
async function goneIsFalse(hit: Promise<unknown>): Promise<boolean> {
  try {
    return (await hit) !== false
  } catch (error) {
    if (!(error instanceof Error)) throw error
    if (/NotFound/.test(error.name) || /not ?found|paused/i.test(error.message)) return false
    throw error
  }
}
