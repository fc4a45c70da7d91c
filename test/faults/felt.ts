import type { Outcome } from './messages.js'
import { planFault } from './plan.js'

/** Faults of one kind that were planned so often cannot all have come too late to be felt. */
const CERTAIN = 25

/** How often persisters were to be hit, and how often they were. */
export function countPersisterFaults(
  seed: number,
  outcomes: readonly Outcome[],
): { readonly planned: Record<string, number>; readonly felt: Record<string, number> } {
  const planned: Record<string, number> = {}
  const felt: Record<string, number> = {}
  const count = (counts: Record<string, number>, kind: string): void => {
    if (kind !== 'none') counts[`${kind} persister`] = (counts[`${kind} persister`] ?? 0) + 1
  }
  for (const { operation, attempt, fault } of outcomes) {
    count(planned, planFault(seed, operation, attempt).kind)
    count(felt, fault)
  }
  return { planned, felt }
}

/** Kinds of faults that nobody felt however often they were planned. */
export function findUnfelt(
  planned: Readonly<Record<string, number>>,
  felt: Readonly<Record<string, number>>,
): string[] {
  return Object.entries(planned)
    .filter(([kind, count]) => count >= CERTAIN && (felt[kind] ?? 0) === 0)
    .map(([kind, count]) => `${kind}: planned ${count} times`)
}
