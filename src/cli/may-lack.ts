import type { TierProblem } from '../results/result.js'

/** Whether a place that may hold something did not answer. One that can never be asked, such as a server that only takes the POST, is no failure. */
export function mayLack(unavailable: readonly TierProblem[]): boolean {
  return unavailable.some(({ error }) => error.code !== 'UNSUPPORTED')
}
