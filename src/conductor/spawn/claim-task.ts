import { setTimeout as delay } from 'node:timers/promises'
import type { CallOptions } from '../../call-options.js'
import { ConductorError } from '../../errors.js'
import type { SandboxIntent } from '../../protocol/intent.js'
import type { ManifestAttempt } from '../../protocol/manifest.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import type { SandboxSummary } from '../../sandbox/remote-sandbox.js'
import type { ManifestStore } from '../../stores/manifest-store.js'
import { Conflicts } from '../../stores/s3/conflicts.js'
import { intentOf, type S3Intents, sandboxesOf } from '../../stores/s3/s3-intents.js'
import { OpenIntent, type SandboxNews } from '../open-intent.js'
import { identityOf } from '../sandbox-metadata.js'

/** How long a conductor may take from saying that it starts a worker to having its sandbox. */
export const START_WINDOW_MS = 120_000
/** How long a conductor may take from having a sandbox to having put its tools there. */
export const EQUIP_WINDOW_MS = 20_000
const LOOK_EVERY_MS = 500

/** Where to look and what to write. */
export interface ClaimOptions extends CallOptions {
  readonly intent: SandboxIntent
  readonly intents: S3Intents
  readonly manifests: ManifestStore
  /** Sandboxes of the task, whoever made them. */
  readonly findSandboxes: () => Promise<readonly SandboxSummary[]>
  /** Removes a sandbox that no intent tells of, if nobody ever put a worker into it; resolves with whether it is gone. */
  readonly removeBare: (summary: SandboxSummary) => Promise<boolean>
  /** Whether to wait for a worker that another conductor is starting, instead of rejecting with `EXISTS`. */
  readonly waits: boolean
  /** Of the lost sandbox that this claim is to follow: nobody else's unless they have claimed the task since. */
  readonly previous?: WorkerRecord | undefined
  /**
   * Called for a sandbox that nobody has any more although its end was not written down; resolves with false where that could not be
   * done now either.
   *
   * @param next the one that came after it, if any did
   */
  readonly bury: (vanished: SandboxIntent, next: SandboxIntent | undefined) => Promise<boolean>
}

/** The task is this conductor's to start. */
export interface Claim {
  /** Numbers this sandbox among the task's. */
  readonly attempt: number
  readonly intent: OpenIntent
  /** Tells of its sandbox before anything runs there; rejects with `EXISTS` when another conductor has taken the task over. */
  confirm(news: SandboxNews): Promise<void>
}

/**
 * Takes a task, so that no two conductors make a sandbox for it: a conditional write decides. Resolves with the task's
 * sandboxes instead when it has some. Rejects with `UNSUPPORTED` where the store's conditions cannot be met.
 */
export async function claimTask(options: ClaimOptions): Promise<Claim | readonly SandboxSummary[]> {
  const { intent, intents, previous, signal } = options
  const conflicts = new Conflicts(`the intent of ${intent.task_id}`)
  let before: Predecessors = { expected: null, attempt: (previous?.attempt ?? 0) + 1, unsealed: [] }
  for (;;) {
    const { expected, attempt, unsealed } = before
    const own = { ...intent, attempt }
    try {
      const etag = await intents.write(intentOf([own, ...unsealed]), expected, { signal })
      return claimed(options, own, unsealed.length === 0 ? etag : undefined)
    } catch (error) {
      conflicts.note(error, expected ?? undefined)
    }
    const next = await findPredecessors(options)
    if (!('unsealed' in next)) return next
    before = next
  }
}

/** Goes on without a claim where none can be made: its sandbox is written down as soon as there is one. */
export function unclaimed(intents: S3Intents, intent: SandboxIntent, attempt: number): Claim {
  return told(new OpenIntent(intents, { ...intent, attempt }), attempt)
}

/** The same for a task of which nobody else can know, so that there is nobody to claim it from. */
export function unrivalled(intents: S3Intents, intent: SandboxIntent): Claim {
  return told(new OpenIntent(intents, { ...intent, attempt: 1 }, 'first'), 1)
}

function told(open: OpenIntent, attempt: number): Claim {
  return { attempt, intent: open, confirm: async (news) => void open.tell(news) }
}

/** What a claim is to take the place of. */
interface Predecessors {
  readonly expected: string | null | undefined
  /** The number that comes after theirs. */
  readonly attempt: number
  /** Those whose end is not written down, the latest first. */
  readonly unsealed: readonly SandboxIntent[]
}

/** Resolves once nobody is starting the task, with what there was of it before; or with what there is. */
async function findPredecessors(
  options: ClaimOptions,
): Promise<Predecessors | Claim | readonly SandboxSummary[]> {
  const { intent, intents, findSandboxes, waits, previous, signal } = options
  const { task_id: taskId } = intent
  for (;;) {
    const present = await intents.read(taskId, { signal })
    const there = sandboxesOf(present?.intent)
    // Our own, by an attempt whose answer was lost.
    const own = there.find(({ spawn_id }) => spawn_id === intent.spawn_id)
    if (own !== undefined) return claimed(options, own, there.length === 1 ? present?.etag : undefined)
    const found = present === undefined ? [] : await findSandboxes()
    const spawns = there.map(({ spawn_id }) => spawn_id)
    const alive: SandboxSummary[] = []
    for (const summary of found) {
      // One that nobody is starting or running: its spawn failed, and could not undo it.
      const isOpen = spawns.includes(identityOf(summary)?.spawnId ?? '')
      if (isOpen || !(await options.removeBare(summary))) alive.push(summary)
    }
    if (alive.length > 0) return alive
    const attempts = await attemptsOf(options)
    const open = there.filter((one) => attempts.every(({ spawn_id }) => spawn_id !== one.spawn_id))
    const starting = open.find(
      ({ spawn_id, created_at }) =>
        spawn_id !== previous?.spawn_id && Date.now() - Date.parse(created_at) <= START_WINDOW_MS,
    )
    if (starting === undefined) {
      const unsealed = await buryVanished(options, there, open)
      // Also one whose end was written down just now was one.
      const told = unsealed.length === open.length ? attempts : await attemptsOf(options)
      const numbers = [...told, ...unsealed].map(({ attempt = 1 }) => attempt)
      const attempt = Math.max(previous?.attempt ?? 0, told.length, ...numbers) + 1
      return { expected: present === undefined ? null : present.etag, attempt, unsealed }
    }
    if (!waits) {
      throw new ConductorError(
        'EXISTS',
        `a worker for task ${taskId} is being started by conductor ${starting.conductor}`,
        { retryable: true },
      )
    }
    await delay(LOOK_EVERY_MS, undefined, { signal })
  }
}

async function attemptsOf({ intent, manifests, signal }: ClaimOptions): Promise<readonly ManifestAttempt[]> {
  return (await manifests.read(intent.task_id, { signal }))?.attempts ?? []
}

/** Resolves with those that have to be carried along, the latest first. */
async function buryVanished(
  { previous, bury }: ClaimOptions,
  there: readonly SandboxIntent[],
  open: readonly SandboxIntent[],
): Promise<readonly SandboxIntent[]> {
  const unsealed: SandboxIntent[] = []
  for (const one of [...open].reverse()) {
    // The end of the one that is followed is its own conductor's to write down, which lives.
    const isBuried = one.spawn_id !== previous?.spawn_id && (await bury(one, there[there.indexOf(one) - 1]))
    if (!isBuried) unsealed.unshift(one)
  }
  return unsealed
}

function claimed({ intents }: ClaimOptions, own: SandboxIntent, etag: string | undefined): Claim {
  const intent = new OpenIntent(intents, own, { etag })
  // Always: the other may have judged by a clock that is not ours how long it takes us.
  return { attempt: own.attempt ?? 1, intent, confirm: (news) => intent.confirm(news) }
}
