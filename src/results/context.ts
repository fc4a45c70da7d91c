import type { CallOptions } from '../call-options.js'
import type { Decryptor } from '../encryption/decryptor.js'
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
  /** Reads encrypted results; undefined where nothing is said about encryption. */
  readonly decryptor?: Decryptor | undefined
  readonly onProblem?: ((problem: TierProblem) => void) | undefined
}
