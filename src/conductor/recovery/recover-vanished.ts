import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { type ConductorError, isConductorError } from '../../errors.js'
import type { Receipt } from '../end/receipt.js'
import { sealVanished } from '../end/seal-vanished.js'
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
      const receipt = await recoverOne(taskId, options)
      if (receipt !== undefined) receipts.push(receipt)
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
): Promise<Receipt | undefined> {
  const places = lookup.placesOf(taskId)
  const { intents, manifests } = places
  const intent = (await intents?.read(taskId, { signal }))?.intent
  if (intent?.conductor !== conductorId || manifests === undefined) return undefined
  // Another process may be at it, which has not come to having a sandbox.
  if (Date.now() - Date.parse(intent.created_at) < START_WINDOW_MS) return undefined
  const manifest = await manifests.read(taskId, { signal })
  if (manifest?.attempts.some(({ spawn_id }) => spawn_id === intent.spawn_id) !== true) {
    if ((await lookup.findSandboxes(taskId, { signal })).length > 0) return undefined
    const receipt = await sealVanished(intent, { ...places, manifests }, { signal })
    await intents?.close(intent, { signal })
    return receipt
  }
  await intents?.close(intent, { signal })
  return undefined
}
