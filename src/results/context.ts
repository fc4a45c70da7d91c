import type { CallOptions } from '../call-options.js'
import type { Decryptor } from '../encryption/decryptor.js'
import type { Manifest } from '../protocol/manifest.js'
import type { ManifestStore } from '../stores/manifest-store.js'
import type { ResultStore } from '../stores/result-store.js'
import type { TierProblem } from './read-tiers.js'

/** Where a task's results come from. */
export interface ResultsContext {
  readonly taskId: string
  /** Places to look in, the preferred one first; asked anew for each call, since a sandbox comes and goes. */
  stores(options: CallOptions): Promise<readonly ResultStore[]>
  /** Further places that the task's own documents name: its manifest, if it has one, and what was written down at its beginning. */
  recorded?(manifest: Manifest | undefined, options: CallOptions): Promise<readonly ResultStore[]>
  /** Undefined where the conductor has no place for manifests. */
  readonly manifests: ManifestStore | undefined
  /** Reads encrypted results; undefined where nothing is said about encryption. */
  readonly decryptor?: Decryptor | undefined
  readonly onProblem?: ((problem: TierProblem) => void) | undefined
}

/** All places of a task, for whoever has not read its manifest. */
export async function allStores(
  context: ResultsContext,
  options: CallOptions,
): Promise<readonly ResultStore[]> {
  const stores = await context.stores(options)
  if (context.recorded === undefined) return stores
  const manifest = await context.manifests?.read(context.taskId, options)
  return [...stores, ...(await context.recorded(manifest, options))]
}
