import type { CallOptions } from '../call-options.js'
import { E2bSandboxes } from '../sandbox/e2b-sandboxes.js'
import type { SandboxSummary } from '../sandbox/remote-sandbox.js'
import { S3Intents } from '../stores/s3/s3-intents.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import type { ResolvedOptions } from './options.js'
import { placesOf, type TaskPlaces } from './places.js'
import { identityOf, METADATA } from './sandbox-metadata.js'

/** Where tasks are: their results, their sandboxes, and who says to have them. */
export class TaskLookup {
  readonly sandboxes: E2bSandboxes
  readonly #options: ResolvedOptions
  readonly #s3: S3Location | undefined

  constructor(options: ResolvedOptions, s3: S3Location | undefined) {
    this.#options = options
    this.#s3 = s3
    this.sandboxes = new E2bSandboxes(options.e2b)
  }

  /** Where a task's results lie, as far as the conductor's own settings say. */
  placesOf(taskId: string, volume = this.#options.volume): TaskPlaces {
    return placesOf({ taskId, volume }, this.#options, this.#s3)
  }

  /** Who has which task's worker, where there is a place to say so. */
  get intents(): S3Intents | undefined {
    return this.#s3 === undefined ? undefined : new S3Intents(this.#s3)
  }

  /** Sandboxes of a task, whoever made them, the oldest first. */
  async findSandboxes(taskId: string, { signal }: CallOptions = {}): Promise<SandboxSummary[]> {
    const found: SandboxSummary[] = []
    for await (const summary of this.sandboxes.list({ [METADATA.task]: taskId }, { signal })) {
      if (identityOf(summary) !== undefined) found.push(summary)
    }
    return found.sort((a, b) => a.startedAt.getTime() - b.startedAt.getTime())
  }
}
