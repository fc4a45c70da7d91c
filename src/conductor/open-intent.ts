import { setTimeout as delay } from 'node:timers/promises'
import type { CallOptions } from '../call-options.js'
import { isConductorError } from '../errors.js'
import type { SandboxIntent } from '../protocol/intent.js'
import type { S3Intents } from '../stores/s3/s3-intents.js'
import { untilAborted } from '../until-aborted.js'
import { backOffMs } from './back-off.js'

/** How often a store that is away is tried, for an hour or so: by then it is for others to find out. */
const MAX_TRIES = 150

/** What may be told of a sandbox once it is there. */
export type SandboxNews = Pick<SandboxIntent, 'sandbox_id' | 'deadline_at'>

/** What a task's intent says of one sandbox, from here: whoever comes later is to miss that sandbox when it vanishes. */
export class OpenIntent {
  readonly #intents: S3Intents
  #stopping = new AbortController()
  #sandbox: SandboxIntent
  #etag: string | undefined
  /** Whether the store may have it. */
  #isThere: boolean
  /** Whether nobody but this can have written of its task, so that there is nothing to read first. */
  #isFirst: boolean
  #telling: Promise<void> | undefined
  #tried: Promise<void> | undefined

  /** @param known `first` of a task that nobody else knows; or that the store has it, with its tag while the intent tells of nothing else */
  constructor(
    intents: S3Intents,
    sandbox: SandboxIntent,
    known?: 'first' | { readonly etag: string | undefined } | undefined,
  ) {
    this.#intents = intents
    this.#sandbox = sandbox
    this.#isFirst = known === 'first'
    this.#isThere = typeof known === 'object'
    if (typeof known === 'object') this.#etag = known.etag
  }

  /**
   * Writes down more of it, in the background, until the store takes that: one that is away must not keep work from going on. Resolves
   * once it is written, or could not be at first.
   */
  async tell(news: SandboxNews): Promise<void> {
    this.#sandbox = { ...this.#sandbox, ...news }
    if (this.#telling === undefined) {
      this.#stopping = new AbortController()
      let tried = (): void => {}
      this.#tried = new Promise((resolve) => {
        tried = resolve
      })
      this.#telling = this.#keepTelling(tried).finally(() => {
        this.#telling = undefined
        tried()
      })
      // Whoever closes it hears of what went wrong.
      this.#telling.catch(() => {})
    }
    await this.#tried
  }

  /**
   * Writes down more of it while it is the task's latest sandbox, else rejects with `EXISTS`: on that condition the store takes
   * it, so that whoever counts it as gone either comes first or sees this. One that cannot be asked is told in the background.
   */
  async confirm(news: SandboxNews): Promise<void> {
    this.#sandbox = { ...this.#sandbox, ...news }
    try {
      this.#etag = await this.#intents.note(this.#sandbox, { etag: this.#etag, onlyAsLatest: true })
    } catch (error) {
      if (!isConductorError(error) || error.code === 'EXISTS') throw error
      this.#etag = undefined
      void this.tell(news)
    }
  }

  /** What could not be told so far is not tried again. */
  stop(): void {
    this.#stopping.abort()
  }

  /** Takes it out of the task's intent: its end is written down, or it came to nothing. */
  async close({ signal }: CallOptions = {}): Promise<void> {
    this.stop()
    if (this.#telling !== undefined) await untilAborted(this.#telling, signal)
    if (this.#isThere) await this.#intents.close(this.#sandbox, { etag: this.#etag, signal })
  }

  async #keepTelling(onTried: () => void): Promise<void> {
    const { signal } = this.#stopping
    for (let tries = 0; tries < MAX_TRIES && !signal.aborted; tries++) {
      const told = this.#sandbox
      const isFirst = this.#isFirst
      try {
        this.#isThere = true
        this.#isFirst = false
        this.#etag = isFirst
          ? await this.#intents.write(told, null)
          : await this.#intents.note(told, { etag: this.#etag })
        if (told === this.#sandbox) return
        tries = 0
      } catch (error) {
        if (!isConductorError(error)) throw error
        // What is closed to us stays so; what is there already got through unheard.
        if (!error.retryable && !(isFirst && error.code === 'EXISTS')) return
        // It may have been written all the same.
        this.#etag = undefined
        onTried()
        await delay(backOffMs(tries), undefined, { signal, ref: false }).catch(() => {})
      }
    }
  }
}
