import type { CallOptions } from '../call-options.js'
import type { ManifestStore } from '../stores/manifest-store.js'
import type { ResultStore } from '../stores/result-store.js'
import type { TierProblem } from './read-tiers.js'

/** Where a task's results come from. */
export interface ResultsContext {
  readonly taskId: string
  /** Places to look in, the preferred one first; asked anew for each call, since a sandbox comes and goes. */
  stores(options: CallOptions): Promise<readonly ResultStore[]>
  /** Undefined where the conductor has no place for manifests. */
  readonly manifests: ManifestStore | undefined
  readonly onProblem?: ((problem: TierProblem) => void) | undefined
}
