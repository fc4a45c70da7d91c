import type { Outcome } from './messages.js'
import { lifeOf, planOf, type WorkerKind } from './plan.js'

/** What a persister says whose disk is full. */
export const NO_ROOM = /no space left|NO_SPACE|ENOSPC/i

/** What a persister says that was to reach a remote tier and reached none. */
const NOT_REMOTE = /but not in remote\b/

/** What anyone is told whose sandbox is being finished meanwhile. */
const ENDING = /is being terminated/

/** What the program for images without Node.js says where results are to be encrypted. */
export const NEEDS_NODE = /results are to be encrypted, which needs Node\.js/

/** What a worker may be refused with, by its kind; everything else is a defect. */
const EXPECTED_OF: Readonly<Record<WorkerKind, readonly RegExp[]>> = {
  grant: [ENDING],
  keys: [ENDING],
  remote: [ENDING, NOT_REMOTE],
  volume: [ENDING, NO_ROOM],
}

/** What is known of calls that stored nothing. */
export interface RefusalEvidence {
  readonly seed: number
  readonly outcomes: readonly Outcome[]
  /** Operations that workers said they are through with. */
  readonly done: ReadonlySet<number>
}

/**
 * Calls that had no reason not to store, one line each: persisters that crashed, that refused for what is none of the reasons
 * that their worker can have, and operations that nobody acknowledged in the end although there was room for them.
 */
export function checkRefusals({ seed, outcomes, done }: RefusalEvidence): string[] {
  const problems: string[] = []
  const last = new Map<number, Outcome>()
  const acknowledged = new Set<number>()
  for (const outcome of outcomes) {
    const { taskId, life, operation, attempt, via, status, said = '' } = outcome
    last.set(operation, outcome)
    if (status === 'acknowledged') acknowledged.add(operation)
    const call = `operation ${operation} attempt ${attempt} of ${lifeOf(taskId, life)} (${via})`
    const kind = planOf(seed, taskId)?.kind ?? 'grant'
    const expected = [...EXPECTED_OF[kind], ...(via === 'sh' ? [NEEDS_NODE] : [])]
    if (status === 'crashed') problems.push(`${call} crashed: ${said}`)
    else if (status === 'refused' && !expected.some((reason) => reason.test(said)))
      problems.push(`${call}, ${kind}, refused: ${said}`)
  }
  for (const operation of done) {
    if (acknowledged.has(operation)) continue
    const outcome = last.get(operation)
    const hadNoRoom = outcome?.status === 'refused' && NO_ROOM.test(outcome.said ?? '')
    if (!hadNoRoom) problems.push(`operation ${operation} was given up: ${outcome?.said ?? outcome?.status}`)
  }
  return problems
}
