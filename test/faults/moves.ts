import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { Sandbox } from 'e2b'
import { mintGrant } from '../../src/grants/mint-grant.js'
import { openS3Location, type S3Options } from '../../src/stores/s3/s3-location.js'
import type { TcpProxy } from '../support/proxy.js'
import type { WorkerPlan } from './plan.js'
import type { Dice } from './random.js'
import { DISK_BYTES, fillDisk, type World } from './world.js'

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
    do: (world, _, dice) =>
      isFelt([world.s3Proxy], 'at once', async () => {
        await world.s3.kill()
        await delay(duration(dice) / 3)
        await world.s3.restart()
        world.repoint()
      }),
  },
  'freeze S3': {
    weight: 5,
    things: ['s3'],
    do: (world, _, dice) =>
      isFelt([world.s3Proxy], 'by who comes', async () => {
        world.s3.freeze?.(true)
        await delay(duration(dice))
        world.s3.freeze?.(false)
      }),
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
        await delay(duration(dice) / 3)
        await world.restartEndpoint()
        world.repoint()
      }),
  },
  'freeze HTTP': {
    weight: 5,
    things: ['s3', 'http'],
    do: (world, _, dice) =>
      withoutS3(world, async () => {
        world.endpoint.signal('SIGSTOP')
        await delay(duration(dice))
        world.endpoint.signal('SIGCONT')
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
      return victim !== undefined && (await goneIsFalse(expireGrant(world, victim, duration(dice))))
    },
  },
  'fill disk': {
    weight: 8,
    things: ['disk'],
    do: async (world, targets, dice) => {
      const victim = choose(targets, dice, ({ kind }) => kind === 'volume')
      const content = victim && world.volumes.get(volumeOf(victim.taskId))
      if (victim === undefined || content === undefined) return false
      return isMet(world, victim, async () => {
        const ballast = await fillDisk(content, DISK_BYTES - dice.between(0, 40_000))
        await delay(duration(dice))
        await rm(ballast, { force: true })
      })
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

/** Whether there were connections to be broken, or somebody came in the meantime. */
async function isFelt(
  proxies: readonly TcpProxy[],
  how: 'at once' | 'by who comes',
  outage: () => Promise<void>,
): Promise<boolean> {
  const count = (of: 'taken' | 'open'): number => proxies.reduce((sum, proxy) => sum + proxy[of], 0)
  const before = count('taken')
  const hits = how === 'at once' && count('open') > 0
  await outage()
  return hits || count('taken') > before
}

async function cut(proxies: readonly TcpProxy[], dice: Dice): Promise<boolean> {
  return isFelt(proxies, 'at once', async () => {
    for (const proxy of proxies) proxy.cut()
    await delay(duration(dice))
    for (const proxy of proxies) proxy.restore()
  })
}

async function withoutS3({ s3Proxy, endpointProxy }: World, outage: () => Promise<void>): Promise<boolean> {
  s3Proxy.cut()
  try {
    return await isFelt([endpointProxy], 'by who comes', outage)
  } finally {
    s3Proxy.restore()
  }
}

/** Whether the worker did anything in the meantime. */
async function isMet({ ledger }: World, { taskId }: Victim, outage: () => Promise<void>): Promise<boolean> {
  const before = ledger.outcomes.length
  await outage()
  return ledger.outcomes.slice(before).some((outcome) => outcome.taskId === taskId)
}

/** Puts a grant in its place that is about to expire, and after a while the good one again. */
async function expireGrant(world: World, victim: Victim, forMs: number): Promise<boolean> {
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
    const met = await isMet(world, victim, () => delay(forMs))
    await sandbox.files.write(path, good)
    return met
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
