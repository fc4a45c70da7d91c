import type { CallOptions } from '../call-options.js'
import type { Manifest } from '../protocol/manifest.js'

/** What a manifest says at its front, without its results. */
export interface ManifestSummary extends Pick<Manifest, 'outcome' | 'complete'> {
  readonly sealedAt: Date
  readonly resultCount: number
  /** Bytes of all results together. */
  readonly sizeBytes: number
}

/** Options of {@link ManifestStore.update}. */
export interface UpdateManifestOptions extends CallOptions {
  /** Whether most likely none is there: saves reading first. What is there all the same is read then. @default false */
  readonly expectNone?: boolean | undefined
  /** What an earlier update resolved with: saves reading it again where the store can tell that it is still there. */
  readonly present?: Manifest | undefined
}

/** Where sealed tasks are written down; only conductors can write there. */
export interface ManifestStore {
  /** Names this place in messages. */
  readonly name: string
  /** Resolves `undefined` when the task is not sealed; rejects with `PROTOCOL` when what lies there is no manifest of the task. */
  read(taskId: string, options?: CallOptions): Promise<Manifest | undefined>
  /** The same without the results, at less cost. */
  summarize(taskId: string, options?: CallOptions): Promise<ManifestSummary | undefined>
  /**
   * Replaces what is there by what `change` makes of it, and by nothing when that returns `undefined`; resolves with what is
   * there then. `change` is called again when another conductor came in between, where the store can tell.
   */
  update(
    taskId: string,
    change: (present: Manifest | undefined) => Manifest | undefined,
    options?: UpdateManifestOptions,
  ): Promise<Manifest | undefined>
  /**
   * The task counts as not sealed from then on, provided that what is there is still what is meant; resolves with whether it is
   * so. Asked again when another conductor came in between, where the store can tell.
   */
  delete(taskId: string, isMeant: (present: Manifest) => boolean, options?: CallOptions): Promise<boolean>
}
