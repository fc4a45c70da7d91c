import type { CallOptions } from '../call-options.js'
import type { Manifest } from '../protocol/manifest.js'

/** Where sealed tasks are written down; only conductors can write there. */
export interface ManifestStore {
  /** Resolves `undefined` when the task is not sealed; rejects with `PROTOCOL` when what lies there is no manifest of the task. */
  read(taskId: string, options?: CallOptions): Promise<Manifest | undefined>
  /** Replaces what was there: a task that ran again is sealed again. */
  write(manifest: Manifest, options?: CallOptions): Promise<void>
}
