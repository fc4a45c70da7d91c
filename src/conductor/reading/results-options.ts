import { z } from 'zod'
import type { TierProblem } from '../../results/result.js'
import type { AfterReading } from '../../sandbox/sandbox-visits.js'

/** Which sandboxes of a task are looked into. */
export type SandboxReading = 'none' | 'running' | 'paused'

/** Where {@link Conductor.results} looks besides the task's lasting places. */
export interface TaskResultsOptions {
  /**
   * Which of the task's sandboxes are read, for what has not left them yet. `running`: those that run; one that is paused is
   * reported among `unavailable`. `paused`: paused ones are resumed as well, with everything that runs in them, for as long as
   * somebody reads. A task that is sealed completely has none, and costs no request to E2B.
   * @default 'running' where there is an E2B API key, else 'none'
   */
  readonly sandboxes?: SandboxReading | undefined
  /**
   * What becomes of a sandbox that was resumed, a few seconds after its last reader: paused again, left to its timeout of a
   * minute, or killed; killed only when each of its results was read to the end or lies elsewhere too, and paused otherwise.
   * One that somebody else has taken up meanwhile is left alone.
   * @default 'pause'
   */
  readonly afterReading?: AfterReading | undefined
  /** Told of what went wrong on one tier while another could still help, as a worker's own `problem` event tells. */
  readonly onProblem?: ((problem: TierProblem) => void) | undefined
}

/** @internal */
export const taskResultsOptionsSchema = z.strictObject({
  sandboxes: z.enum(['none', 'running', 'paused']).optional(),
  afterReading: z.enum(['pause', 'kill', 'leave']).optional(),
  onProblem: z.custom<(problem: TierProblem) => void>((value) => typeof value === 'function').optional(),
})
