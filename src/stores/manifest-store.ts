import type { CallOptions } from '../call-options.js'
import type { Manifest } from '../protocol/manifest.js'

/** Options of {@link ManifestStore.update}. */
export interface UpdateManifestOptions extends CallOptions {
  /** Whether most likely none is there: saves reading first. What is there all the same is read then. @default false */
  readonly expectNone?: boolean | undefined
}

/** Where sealed tasks are written down; only conductors can write there. */
export interface ManifestStore {
  /** Resolves `undefined` when the task is not sealed; rejects with `PROTOCOL` when what lies there is no manifest of the task. */
  read(taskId: string, options?: CallOptions): Promise<Manifest | undefined>
  /**
   * Replaces what is there by what `change` makes of it, and by nothing when that returns `undefined`; resolves with what is
   * there then. `change` is called again when another conductor came in between, where the store can tell.
   */
  update(
    taskId: string,
    change: (present: Manifest | undefined) => Manifest | undefined,
    options?: UpdateManifestOptions,
  ): Promise<Manifest | undefined>
}
