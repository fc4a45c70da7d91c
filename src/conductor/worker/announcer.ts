import type { ResultRecord } from '../../protocol/record.js'
import type { ResultsContext } from '../../results/context.js'
import { Result } from '../../results/result.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { describeRecord } from '../../stores/result-store.js'
import type { SpoolStore } from '../../stores/spool-store.js'
import type { KnownResult } from '../end/given-up.js'
import type { TaskPlaces } from '../places.js'
import { watchResults } from './watch-results.js'

/** What an announcer speaks of, and to whom. */
export interface AnnouncerOptions {
  readonly taskId: string
  readonly sandbox: RemoteSandbox
  readonly spool: SpoolStore
  readonly places: TaskPlaces
  readonly results: ResultsContext
  readonly onResult: (result: Result) => void
}

/** Tells of each result of a worker once, whoever brings the news first: the watch on its spool, or draining it. */
export class Announcer {
  readonly #options: AnnouncerOptions
  readonly #known = new Map<string, KnownResult>()
  #stop: Promise<() => Promise<void>> | undefined

  constructor(options: AnnouncerOptions) {
    this.#options = options
  }

  /** Starts to watch the spool; it costs a connection, so call it when somebody listens. Repeated calls do nothing. */
  watch(): void {
    if (this.#stop !== undefined) return
    const { sandbox, places, taskId } = this.#options
    this.#stop = watchResults(sandbox, places.localDir, taskId, (record) => this.announce(record))
    this.#stop.catch(() => {
      // Watching only makes news arrive sooner; draining announces every result in the end.
      this.#stop = undefined
    })
  }

  /** All that it heard of, as it was heard last. */
  get known(): Iterable<KnownResult> {
    return this.#known.values()
  }

  /** Tells of a result unless it was told of before. */
  announce(record: ResultRecord): void {
    const { key, name, sha256, stored } = record
    const isNew = !this.#known.has(key)
    this.#known.set(key, { key, name, sha256, stored })
    if (!isNew) return
    const { places, spool, results, onResult } = this.#options
    const inS3 = record.stored.some(({ tier }) => tier === 's3')
    onResult(
      new Result({
        key: record.key,
        size: record.size,
        stores: [...(inS3 && places.s3 !== undefined ? [places.s3] : []), spool],
        description: describeRecord(record),
        context: results,
      }),
    )
  }

  /** Stops watching. */
  async end(): Promise<void> {
    try {
      await (await this.#stop)?.()
    } catch {
      // The watch's connection died with the sandbox: there is nothing left to stop.
    }
  }
}
