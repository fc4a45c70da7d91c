import { setTimeout as delay } from 'node:timers/promises'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { Intent } from '../../protocol/intent.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import type { SandboxSummary } from '../../sandbox/remote-sandbox.js'
import type { ManifestStore } from '../../stores/manifest-store.js'
import type { S3Intents } from '../../stores/s3/s3-intents.js'

/** How long a conductor may take from saying that it starts a worker to having its sandbox. */
export const START_WINDOW_MS = 120_000
const LOOK_EVERY_MS = 500

/** Where to look and what to write. */
export interface ClaimOptions extends CallOptions {
  readonly intent: Intent
  readonly intents: S3Intents
  readonly manifests: ManifestStore
  /** Sandboxes of the task, whoever made them. */
  readonly findSandboxes: () => Promise<readonly SandboxSummary[]>
  /** Whether to wait for a worker that another conductor is starting, instead of rejecting with `EXISTS`. */
  readonly waits: boolean
  /** Of the lost sandbox that this claim is to follow: nobody else's unless they have claimed the task since. */
  readonly previous?: WorkerRecord | undefined
  /** Called for one that is passed over although its end was not written down. */
  readonly bury: (vanished: Intent) => Promise<void>
}

/** The task is this conductor's to start. */
export interface Claim {
  /** Numbers this sandbox among the task's. */
  readonly attempt: number
  /** Tag of the intent as it was written; undefined where that failed, or the store sends none. */
  readonly etag: Promise<string | undefined>
  /** Says that nothing came of it, so that the next one need not wait. */
  release(): Promise<void>
  /** Rejects with `EXISTS` when another conductor, tired of waiting, has taken the task over. */
  confirm(): Promise<void>
}

/**
 * Takes a task, so that no two conductors make a sandbox for it: a conditional write decides. Resolves with the task's
 * sandboxes instead when it has some.
 */
export async function claimTask(options: ClaimOptions): Promise<Claim | readonly SandboxSummary[]> {
  const { intent, intents, manifests, findSandboxes, waits, previous, signal } = options
  const taskId = intent.task_id
  let expected: string | null | undefined = null
  let attempt = (previous?.attempt ?? 0) + 1
  for (;;) {
    try {
      const etag = await intents.write({ ...intent, attempt }, expected, { signal })
      return claimOf(options, attempt, Promise.resolve(etag))
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'EXISTS') throw error
    }
    const present = await intents.read(taskId, { signal })
    if (present === undefined) {
      expected = null
      continue
    }
    const other = present.intent
    // Our own, by an attempt whose answer was lost.
    if (other?.spawn_id === intent.spawn_id) {
      return claimOf(options, other.attempt ?? attempt, Promise.resolve(present.etag))
    }
    const found = await findSandboxes()
    if (found.length > 0) return found
    const attempts = (await manifests.read(taskId, { signal }))?.attempts ?? []
    const isSealed = attempts.some(({ spawn_id }) => spawn_id === other?.spawn_id)
    const isOver = other === undefined || other.spawn_id === previous?.spawn_id || isSealed
    if (isOver || Date.now() - Date.parse(other.created_at) > START_WINDOW_MS) {
      if (!isOver) await options.bury(other)
      // Also one whose end nobody wrote down was one.
      const numbers = [...attempts.map(({ attempt: number }) => number), other?.attempt ?? 0]
      attempt = Math.max(attempt, attempts.length + 1, Math.max(...numbers) + 1)
      expected = present.etag
      continue
    }
    if (!waits) {
      throw new ConductorError(
        'EXISTS',
        `a worker for task ${taskId} is being started by conductor ${other.conductor}`,
        {
          retryable: true,
        },
      )
    }
    await delay(LOOK_EVERY_MS, undefined, { signal })
  }
}

/** Writes down a task whose name nobody else can know, without waiting for that: its worker is to be missed when it vanishes. */
export function noteTask(options: Pick<ClaimOptions, 'intent' | 'intents'>): Claim {
  const { intent, intents } = options
  const etag = intents.write(intent, null).catch((error: unknown) => {
    // A store that is away must not keep work from starting.
    if (!isConductorError(error)) throw error
    return undefined
  })
  const claim = claimOf(options, 1, etag)
  // Nobody waits for this task, so that nobody has to wait for its end to be said.
  return { ...claim, confirm: async () => {}, release: async () => void claim.release() }
}

function claimOf(
  { intent, intents }: Pick<ClaimOptions, 'intent' | 'intents'>,
  attempt: number,
  etag: Promise<string | undefined>,
): Claim {
  const claimedAt = Date.now()
  return {
    attempt,
    etag,
    release: async () => {
      try {
        await intents.close(intent, { etag: await etag })
      } catch (error) {
        // Whoever wants the task waits until the window is over; nothing worse comes of it.
        if (!isConductorError(error)) throw error
      }
    },
    confirm: async () => {
      if (Date.now() - claimedAt < START_WINDOW_MS / 2) return
      const present = await intents.read(intent.task_id)
      if (present?.intent?.spawn_id === intent.spawn_id) return
      throw new ConductorError(
        'EXISTS',
        `task ${intent.task_id} was taken over by conductor ${present?.intent?.conductor ?? 'unknown'}`,
      )
    },
  }
}
