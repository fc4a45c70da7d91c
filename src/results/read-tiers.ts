import { setTimeout as sleep } from 'node:timers/promises'
import type { CallOptions } from '../call-options.js'
import { ConductorError, type ErrorCode, isConductorError } from '../errors.js'
import type { BodyFacts, DescribedBody, OpenOptions, ResultStore, StoreTier } from '../stores/result-store.js'
import { readChunks } from '../streams/web-stream.js'
import { LocalError } from './local-error.js'
import type { DigestCheck } from './verify.js'

/** How often a body that broke off is taken up again on the same tier without getting on much. */
const MAX_RESUMES = 4
/** After so many bytes more, a tier has earned all its attempts again. */
const PROGRESS_BYTES = 1 << 20
const FIRST_PAUSE_MS = 100
/** What is the same on every tier. */
const unmendable: ReadonlySet<ErrorCode> = new Set(['TOO_LARGE', 'INVALID_OPTION', 'DECRYPTION_KEY_MISSING'])

/** Something that went wrong on one tier while another could still help. */
export interface TierProblem {
  /** The result that was being read; undefined when a whole listing failed. */
  readonly key: string | undefined
  /** The task that was being listed, where several were. */
  readonly taskId?: string | undefined
  /** The store's name. */
  readonly store: string
  readonly tier: StoreTier
  readonly error: ConductorError
}

/** A tier that has been asked for the bytes before anybody knew what they must be. */
export class OpenedTier {
  readonly store: ResultStore
  readonly about: BodyFacts
  #body: ReadableStream<Uint8Array> | undefined

  constructor(store: ResultStore, { body, about }: DescribedBody) {
    this.store = store
    this.about = about
    this.#body = body
  }

  /** The bytes, for whoever asks first; undefined afterwards. */
  take(): ReadableStream<Uint8Array> | undefined {
    const body = this.#body
    this.#body = undefined
    return body
  }

  /** Frees the connection if nobody has taken the bytes. */
  async close(): Promise<void> {
    await this.take()?.cancel()
  }
}

/** How {@link ResultTiers.chunks} reads. */
export interface ChunksOptions extends OpenOptions {
  /** What is there to begin with, of the same tier and from the first byte on; used if the first byte is where it begins. */
  readonly opened?: OpenedTier | undefined
}

/** What {@link ResultTiers} is made from. */
export interface ResultTiersParts {
  readonly key: string
  /** In bytes, as it was listed. */
  readonly size: number
  /** Those that are known to hold it, the preferred one first. */
  readonly stores: readonly ResultStore[]
  /** Finds further ones, for when those fail. */
  readonly findMore: (options: CallOptions) => Promise<readonly ResultStore[]>
  readonly onProblem: ((problem: TierProblem) => void) | undefined
}

/** One result's tiers, the preferred one first, and how to read from whichever can give it. */
export class ResultTiers {
  readonly #parts: ResultTiersParts
  #more: readonly ResultStore[] = []

  constructor(parts: ResultTiersParts) {
    this.#parts = parts
  }

  /** Every tier, those that are known to hold it first. */
  async *all(options: CallOptions): AsyncGenerator<ResultStore, void, undefined> {
    yield* this.#parts.stores
    if (this.#more.length === 0) this.#more = await this.#parts.findMore(options)
    yield* this.#more
  }

  /** The first tier's answer to a reader that is one; rejects with what all of them said. */
  async read<T>(options: CallOptions, attempt: (store: ResultStore) => Promise<T>): Promise<T> {
    return this.#try('read', this.all(options), attempt)
  }

  /** The same of those that are known to hold it, and for whatever else they are asked. */
  async ask<T>(doing: string, attempt: (store: ResultStore) => Promise<T>): Promise<T> {
    return this.#try(doing, this.#parts.stores, attempt)
  }

  async #try<T>(
    doing: string,
    stores: AsyncIterable<ResultStore> | Iterable<ResultStore>,
    attempt: (store: ResultStore) => Promise<T>,
  ): Promise<T> {
    const errors: ConductorError[] = []
    for await (const store of stores) {
      try {
        return await attempt(store)
      } catch (error) {
        errors.push(this.note(store, error))
      }
    }
    throw this.allFailed(doing, errors)
  }

  /** Gives the error back when another tier may do better; throws what no other tier can mend. */
  note(store: ResultStore, error: unknown): ConductorError {
    const mendable = isConductorError(error) && !(error instanceof LocalError) && !unmendable.has(error.code)
    if (!mendable) throw error
    this.#parts.onProblem?.({ key: this.#parts.key, store: store.name, tier: store.tier, error })
    return error
  }

  /** The one error for what every tier said. */
  allFailed(doing: string, errors: readonly ConductorError[]): ConductorError {
    const [first] = errors
    if (first !== undefined && errors.length === 1) return first
    const said = errors.map((error) => error.message).join('; ')
    return new ConductorError(
      first?.code ?? 'NOT_FOUND',
      `cannot ${doing} ${this.#parts.key} from any tier: ${said}`,
      {
        retryable: errors.some((error) => error.retryable),
        cause: new AggregateError(errors),
      },
    )
  }

  /**
   * The first tier that gives the bytes together with what they must be. Undefined where one that cannot do that in one request
   * comes first; rejects with what all of them said.
   */
  async open(options: CallOptions): Promise<OpenedTier | undefined> {
    const errors: ConductorError[] = []
    for await (const store of this.all(options)) {
      if (store.openDescribed === undefined) return undefined
      try {
        return new OpenedTier(store, await store.openDescribed(this.#parts.key, options))
      } catch (error) {
        errors.push(this.note(store, error))
      }
    }
    throw this.allFailed('read', errors)
  }

  /** The bytes as one tier has them; a connection that breaks is taken up again at the byte it had come to, a few times. */
  async *chunks(
    store: ResultStore,
    { signal, offset = 0, opened }: ChunksOptions = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    let at = offset
    let brokeAt = offset
    for (let resumes = 0; ; ) {
      try {
        const first = at === 0 ? opened?.take() : undefined
        const body = first ?? (await store.open(this.#parts.key, { signal, offset: at }))
        for await (const chunk of readChunks(body)) {
          at += chunk.length
          yield chunk
        }
        return
      } catch (error) {
        // One that gives nothing at all is left for the next tier; trying it again is its store's business.
        if (!isConductorError(error) || !error.retryable || at === offset) throw error
        // All had come, and only the end was not heard.
        if (at >= this.#parts.size) return
        if (at - brokeAt >= PROGRESS_BYTES) resumes = 0
        if (resumes === MAX_RESUMES) throw error
        brokeAt = at
        await pause(FIRST_PAUSE_MS * 2 ** resumes, signal)
        resumes += 1
      }
    }
  }

  /** The bytes as they come; a tier that fails half-way is replaced by the next one at the same byte. */
  async *chunksFromAny(
    check: DigestCheck | undefined,
    { signal }: CallOptions,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    let offset = 0
    const errors: ConductorError[] = []
    for await (const store of this.all({ signal })) {
      try {
        for await (const chunk of this.chunks(store, { signal, offset })) {
          check?.update(chunk)
          offset += chunk.length
          yield chunk
        }
        check?.assertAllCame(store.name)
      } catch (error) {
        errors.push(this.note(store, error))
        continue
      }
      check?.finish(store.name)
      return
    }
    throw this.allFailed('read', errors)
  }
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, signal === undefined ? {} : { signal })
  } catch (error) {
    signal?.throwIfAborted()
    throw error
  }
}
