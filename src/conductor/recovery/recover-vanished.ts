import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { type ConductorError, isConductorError } from '../../errors.js'
import type { SandboxIntent } from '../../protocol/intent.js'
import { sandboxesOf } from '../../stores/s3/s3-intents.js'
import type { Receipt } from '../end/receipt.js'
import { sealVanished } from '../end/seal-vanished.js'
import { METADATA } from '../sandbox-metadata.js'
import { START_WINDOW_MS } from '../spawn/claim-task.js'
import type { TaskLookup } from '../task-lookup.js'

const CONCURRENT_TASKS = 8

/** Which tasks of which conductor. */
export interface VanishedOptions extends CallOptions {
  readonly conductorId: string
  readonly lookup: TaskLookup
  /** Whether somebody sees to the task, or can. */
  readonly isSeenTo: (taskId: string) => boolean
}

/** What became of workers that had vanished. */
export interface VanishedReport {
  readonly receipts: readonly Receipt[]
  readonly failures: readonly { readonly taskId: string; readonly error: ConductorError }[]
}

/**
 * Certifies and seals tasks of a conductor whose sandboxes went away while nobody lived who would have noticed: their intents
 * are open, and E2B knows no sandbox of theirs. Costs a request for every thousand tasks that there are, and some for each that
 * is looked at.
 */
export async function recoverVanished(options: VanishedOptions): Promise<VanishedReport> {
  const { lookup, isSeenTo, signal } = options
  const receipts: Receipt[] = []
  const failures: VanishedReport['failures'][number][] = []
  const limit = pLimit(CONCURRENT_TASKS)
  const under: Promise<void>[] = []
  const recover = async (taskId: string): Promise<void> => {
    try {
      receipts.push(...(await recoverOne(taskId, options)))
    } catch (error) {
      if (!isConductorError(error)) throw error
      failures.push({ taskId, error })
    }
  }
  const { intents } = lookup
  if (intents === undefined) return { receipts, failures }
  try {
    for await (const taskId of intents.listOpen({ signal })) {
      if (!isSeenTo(taskId)) under.push(limit(() => recover(taskId)))
    }
  } finally {
    await Promise.all(under)
  }
  return { receipts, failures }
}

async function recoverOne(
  taskId: string,
  { conductorId, lookup, signal }: VanishedOptions,
): Promise<readonly Receipt[]> {
  const places = lookup.placesOf(taskId)
  const { intents, manifests } = places
  if (intents === undefined || manifests === undefined) return []
  const there = sandboxesOf((await intents.read(taskId, { signal }))?.intent)
  const attempts = (await manifests.read(taskId, { signal }))?.attempts ?? []
  const isSealed = (one: SandboxIntent): boolean => attempts.some(({ spawn_id }) => spawn_id === one.spawn_id)
  let isAlive: Promise<(one: SandboxIntent) => boolean> | undefined
  const receipts: Receipt[] = []
  // The first one first: what it left is not its successors'.
  for (const one of [...there].reverse()) {
    if (one.conductor !== conductorId) continue
    if (!isSealed(one)) {
      // Another process may be at it, which has not come to having a sandbox.
      if (Date.now() - Date.parse(one.created_at) < START_WINDOW_MS) continue
      isAlive ??= findAlive(taskId, lookup, { signal })
      if ((await isAlive)(one)) continue
      const next = there[there.indexOf(one) - 1]
      // Its spool may be a volume of its own, and results lie nowhere else.
      const own = { ...lookup.placesOf(taskId, one.volume), manifests }
      const receipt = await sealVanished(one, own, { next, signal })
      if (receipt !== undefined) receipts.push(receipt)
    }
    await intents.close(one, { signal })
  }
  return receipts
}

/** Tells which of a task's spawns have a sandbox. */
async function findAlive(
  taskId: string,
  lookup: TaskLookup,
  { signal }: CallOptions,
): Promise<(one: SandboxIntent) => boolean> {
  const found = await lookup.findSandboxes(taskId, { signal })
  const spawns = new Set(found.map((summary) => summary.metadata[METADATA.spawn]))
  return ({ spawn_id }) => spawns.has(spawn_id)
}
