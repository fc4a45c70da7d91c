import type { CallOptions } from '../call-options.js'
import type { Manifest } from '../protocol/manifest.js'

/** What a manifest says at its front, without its results. */
export interface ManifestSummary extends Pick<Manifest, 'outcome' | 'complete'> {
  readonly sealedAt: Date
  readonly resultCount: number
  /** Bytes of all results together. */
  readonly sizeBytes: number
}

/** Where sealed tasks are written down; only conductors can write there. */
export interface ManifestStore {
  /** Names this place in messages. */
  readonly name: string
  /** Resolves `undefined` when the task is not sealed; rejects with `PROTOCOL` when what lies there is no manifest of the task. */
  read(taskId: string, options?: CallOptions): Promise<Manifest | undefined>
  /** The same without the results, at less cost. */
  summarize(taskId: string, options?: CallOptions): Promise<ManifestSummary | undefined>
  /** Replaces what was there: a task that ran again is sealed again. */
  write(manifest: Manifest, options?: CallOptions): Promise<void>
  /**
   * Replaces a manifest by what `change` makes of it, and asks it again when somebody else has written meanwhile. Nothing is
   * written when it gives `undefined`. Resolves with what now lies there, `undefined` when the task is not sealed.
   */
  update(
    taskId: string,
    change: (manifest: Manifest) => Manifest | undefined,
    options?: CallOptions,
  ): Promise<Manifest | undefined>
  /** The task counts as not sealed from then on. Does nothing when it is not. */
  delete(taskId: string, options?: CallOptions): Promise<void>
}
