import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { ARCHIVE_SUFFIX, splitKey } from '../protocol/key.js'
import type { JsonObject } from '../protocol/record.js'
import type { ResultDescription, ResultStore, StoreTier, UrlOptions } from '../stores/result-store.js'
import { readChunks } from '../streams/web-stream.js'
import { type Extracted, extractArchive } from './extract.js'
import { saveChunks } from './save.js'
import { DigestCheck, verifiedChunks } from './verify.js'

/** Options for reading a result. */
export interface ReadOptions extends CallOptions {
  /** Whether the bytes are checked against the digest that was stored with them. @default true */
  readonly verify?: boolean | undefined
}

/** Options for reading a result into memory. */
export interface ReadAllOptions extends ReadOptions {
  /** Refuses larger results with `TOO_LARGE`, in bytes. @default no limit */
  readonly maxBytes?: number | undefined
}

/** Options for unpacking a result. */
export interface ExtractOptions extends ReadOptions {
  /** Refuses archives that unpack to more, in bytes. @default 200 times the archive's size, and 256 MiB */
  readonly maxBytes?: number | undefined
  /** Refuses archives with more files, folders and links. @default 1,000,000 */
  readonly maxEntries?: number | undefined
}

/** Something that went wrong on one tier while another could still help. */
export interface TierProblem {
  /** The result that was being read; undefined when a whole listing failed. */
  readonly key: string | undefined
  /** The store's name. */
  readonly store: string
  readonly tier: StoreTier
  readonly error: ConductorError
}

/** What a result is made from. */
export interface ResultParts {
  /** Checked before. */
  readonly key: string
  readonly size: number
  /** Those that hold it, the preferred one first. At least one. */
  readonly stores: readonly ResultStore[]
  /** What is known already; otherwise it is asked for when first needed. */
  readonly description?: ResultDescription | undefined
  readonly onProblem?: ((problem: TierProblem) => void) | undefined
}

/** One result of a worker, wherever it lies. Reading tries the next tier when one fails or its bytes do not match. */
export class Result {
  /** `{task_id}/{timestamp}-{name}` */
  readonly key: string
  readonly taskId: string
  /** UTC, `YYYYMMDD-HHMMSS`. */
  readonly timestamp: string
  /** An archived directory's name ends in `.tar.gz`. */
  readonly name: string
  /** Bytes. */
  readonly size: number
  readonly #stores: readonly ResultStore[]
  readonly #onProblem: ((problem: TierProblem) => void) | undefined
  #description: ResultDescription | undefined

  constructor(parts: ResultParts) {
    const { taskId, timestamp, name } = splitKey(parts.key)
    this.key = parts.key
    this.taskId = taskId
    this.timestamp = timestamp
    this.name = name
    this.size = parts.size
    this.#stores = parts.stores
    this.#description = parts.description
    this.#onProblem = parts.onProblem
  }

  /** Every tier that holds it, the preferred one first. */
  get tiers(): readonly StoreTier[] {
    return [...new Set(this.#stores.map(({ tier }) => tier))]
  }

  /** Names of the stores that hold it, for example `s3://bucket/results`. */
  get locations(): readonly string[] {
    return this.#stores.map(({ name }) => name)
  }

  /** @internal Whether metadata and digest are known. */
  get isDescribed(): boolean {
    return this.#description !== undefined
  }

  /** The worker's own metadata; it is the worker's word and nobody else's. */
  get metadata(): JsonObject {
    return this.#known().metadata
  }

  /** 64 hex digits; undefined when the store knows none. */
  get sha256(): string | undefined {
    return this.#known().sha256
  }

  get contentType(): string {
    return this.#known().contentType
  }

  get createdAt(): Date {
    return this.#known().createdAt
  }

  /** How a directory was packed; null for a file. */
  get archive(): 'tar.gz' | null {
    return this.#known().archive
  }

  /** What of its description was malformed, in words; undefined when all is well. */
  get problem(): string | undefined {
    return this.#known().problem
  }

  /** Fetches metadata and digest of a result that was listed without them; does nothing when they are known. */
  async load(options: CallOptions = {}): Promise<this> {
    this.#description ??= await this.#tryStores('describe', async (store) => {
      const description = await store.describe(this.key, options)
      if (description === undefined)
        throw new ConductorError('NOT_FOUND', `${this.key} is not in ${store.name}`)
      return description
    })
    return this
  }

  /** The whole content. */
  async bytes({ maxBytes, ...options }: ReadAllOptions = {}): Promise<Uint8Array> {
    if (maxBytes !== undefined && this.size > maxBytes) {
      throw new ConductorError('TOO_LARGE', `${this.key} has ${this.size} bytes, more than ${maxBytes}`)
    }
    return this.#readWhole(options, async (chunks) => {
      const parts: Uint8Array[] = []
      let size = 0
      for await (const chunk of chunks) {
        size += chunk.length
        // A store may send more than it announced.
        if (maxBytes !== undefined && size > maxBytes) {
          throw new ConductorError('TOO_LARGE', `${this.key} has more than ${maxBytes} bytes`)
        }
        parts.push(chunk)
      }
      return Buffer.concat(parts)
    })
  }

  /** The content as UTF-8 text; rejects with `INTEGRITY` when it is not. */
  async text(options: ReadAllOptions = {}): Promise<string> {
    const bytes = await this.bytes(options)
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    } catch (cause) {
      throw new ConductorError('INTEGRITY', `${this.key} is not UTF-8 text`, { cause })
    }
  }

  /** The content parsed as JSON; rejects with `INTEGRITY` when it is not. What it holds is the worker's word: check it. */
  async json(options: ReadAllOptions = {}): Promise<unknown> {
    const text = await this.text(options)
    try {
      return JSON.parse(text)
    } catch (cause) {
      throw new ConductorError('INTEGRITY', `${this.key} is not JSON`, { cause })
    }
  }

  /**
   * The content as it arrives. A tier that fails half-way is replaced by the next one at the same byte. The digest can only be
   * checked at the end: the stream then errors with `INTEGRITY` instead of closing, and what was read must be thrown away.
   */
  stream(options: ReadOptions = {}): ReadableStream<Uint8Array> {
    const chunks = this.#chunksFromAnyTier(options)
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const next = await chunks.next()
          if (next.done) controller.close()
          else controller.enqueue(next.value)
        },
        async cancel() {
          await chunks.return(undefined)
        },
      },
      { highWaterMark: 0 },
    )
  }

  /** Writes the content to a file, which appears under its name only when it is whole and verified. Replaces what was there. */
  async save(path: string, options: ReadOptions = {}): Promise<void> {
    await this.#readWhole(options, (chunks) => saveChunks(path, chunks))
  }

  /**
   * Unpacks an archived directory into a folder, which must not exist or be empty and appears only when everything is in it,
   * verified. Entries that reach outside, links that lead outside, devices and bombs are refused, and nothing stays behind.
   */
  async extract(dir: string, options: ExtractOptions = {}): Promise<Extracted> {
    const { maxBytes = 256 * 1024 ** 2 + this.size * 200, maxEntries = 1_000_000, ...read } = options
    await this.load({ signal: options.signal })
    if (this.archive !== 'tar.gz' && !this.name.endsWith(ARCHIVE_SUFFIX)) {
      throw new ConductorError('UNSUPPORTED', `${this.key} is not an archive`)
    }
    return this.#readWhole(read, (chunks) => extractArchive(chunks, dir, { maxBytes, maxEntries }))
  }

  /** A link that works without credentials until it expires; rejects with `UNSUPPORTED` when no tier can make one. */
  async url(options: UrlOptions = {}): Promise<string> {
    for (const store of this.#stores) {
      if (store.url !== undefined) return store.url(this.key, options)
    }
    throw new ConductorError(
      'UNSUPPORTED',
      `${this.key} lies only in ${this.locations.join(', ')}: no links there`,
    )
  }

  #known(): ResultDescription {
    if (this.#description === undefined) {
      throw new ConductorError(
        'INVALID_OPTION',
        `${this.key} was listed with metadata: false; call load() before asking for more than key and size`,
      )
    }
    return this.#description
  }

  async #readWhole<T>(
    options: ReadOptions,
    consume: (chunks: AsyncIterable<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    return this.#tryStores('read', (store) => consume(this.#chunksFrom(store, options)))
  }

  async *#chunksFrom(
    store: ResultStore,
    { signal, verify = true }: ReadOptions,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const check = verify ? new DigestCheck((await this.load({ signal })).#known()) : undefined
    const chunks = readChunks(await store.open(this.key, { signal }))
    yield* check === undefined ? chunks : verifiedChunks(chunks, check, store.name)
  }

  async *#chunksFromAnyTier({
    signal,
    verify = true,
  }: ReadOptions): AsyncGenerator<Uint8Array, void, undefined> {
    const check = verify ? new DigestCheck((await this.load({ signal })).#known()) : undefined
    let offset = 0
    const errors: ConductorError[] = []
    for (const store of this.#stores) {
      try {
        for await (const chunk of readChunks(await store.open(this.key, { signal, offset }))) {
          check?.update(chunk)
          offset += chunk.length
          yield chunk
        }
      } catch (error) {
        errors.push(this.#noteProblem(store, error))
        continue
      }
      check?.finish(store.name)
      return
    }
    throw this.#allFailed('read', errors)
  }

  async #tryStores<T>(doing: string, attempt: (store: ResultStore) => Promise<T>): Promise<T> {
    const errors: ConductorError[] = []
    for (const store of this.#stores) {
      try {
        return await attempt(store)
      } catch (error) {
        errors.push(this.#noteProblem(store, error))
      }
    }
    throw this.#allFailed(doing, errors)
  }

  /** Gives the error back when another tier may do better; throws what no other tier can mend. */
  #noteProblem(store: ResultStore, error: unknown): ConductorError {
    if (!isConductorError(error) || error.code === 'TOO_LARGE' || error.code === 'INVALID_OPTION') throw error
    this.#onProblem?.({ key: this.key, store: store.name, tier: store.tier, error })
    return error
  }

  #allFailed(doing: string, errors: readonly ConductorError[]): ConductorError {
    const [first] = errors
    if (first !== undefined && errors.length === 1) return first
    const said = errors.map((error) => error.message).join('; ')
    return new ConductorError(
      first?.code ?? 'NOT_FOUND',
      `cannot ${doing} ${this.key} from any tier: ${said}`,
      {
        retryable: errors.some((error) => error.retryable),
        cause: new AggregateError(errors),
      },
    )
  }
}
