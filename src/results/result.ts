import type { CallOptions } from '../call-options.js'
import { ConductorError } from '../errors.js'
import { contentSize } from '../protocol/encryption/sealed-format.js'
import { parseSealedType, type SealedType } from '../protocol/encryption/sealed-type.js'
import { ARCHIVE_SUFFIX, splitKey } from '../protocol/key.js'
import type { JsonObject } from '../protocol/record.js'
import { joinSignals } from '../signals.js'
import type { ResultDescription, ResultStore, StoreTier } from '../stores/result-store.js'
import { ResultContent } from './content.js'
import type { ResultsContext } from './context.js'
import { type DeletedResult, deleteResult } from './delete-results.js'
import { type Extracted, extractArchive, extractLimits } from './extract.js'
import { LazyDescription } from './lazy-description.js'
import { otherHolders } from './other-holders.js'
import {
  isSchema,
  type JsonSchema,
  type ParsingSchema,
  parseJson,
  type StandardSchema,
} from './parse-json.js'
import type {
  ExtractOptions,
  ReadAllOptions,
  ReadOptions,
  ResultUrlOptions,
  SaveOptions,
} from './read-options.js'
import { ResultTiers } from './read-tiers.js'

export type { TierProblem } from './read-tiers.js'

/** What a result is made from. */
export interface ResultParts {
  /** Checked before. */
  readonly key: string
  readonly size: number
  /** Those that hold it, the preferred one first. At least one. */
  readonly stores: readonly ResultStore[]
  /** What is known already; otherwise it is asked for when first needed. */
  readonly description?: ResultDescription | undefined
  /** The task's places, of which `stores` are some. */
  readonly context: ResultsContext
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
  /** Bytes that are stored; of an encrypted result that is somewhat more than {@link contentSize}. */
  readonly size: number
  readonly #stores: readonly ResultStore[]
  readonly #tiers: ResultTiers
  readonly #context: ResultsContext
  readonly #description: LazyDescription
  readonly #content: ResultContent
  #isDeleted = false

  constructor(parts: ResultParts) {
    const { key, size, stores, context } = parts
    const { taskId, timestamp, name } = splitKey(key)
    this.key = key
    this.taskId = taskId
    this.timestamp = timestamp
    this.name = name
    this.size = size
    this.#stores = stores
    this.#context = context
    const tiers = new ResultTiers({
      key,
      size,
      stores,
      findMore: (options) => otherHolders(context, key, stores, description.known, options),
      onProblem: context.onProblem,
    })
    this.#tiers = tiers
    const description = new LazyDescription(key, tiers, parts.description)
    this.#description = description
    this.#content = new ResultContent({ key, size, tiers, description, decryptor: context.decryptor })
  }

  /** Every tier that is known to hold it, the preferred one first. */
  get tiers(): readonly StoreTier[] {
    return [...new Set(this.#stores.map(({ tier }) => tier))]
  }

  /** Names of the stores that hold it, for example `s3://bucket/results`. */
  get locations(): readonly string[] {
    return this.#stores.map(({ name }) => name)
  }

  /** @internal Whether metadata and digest are known. */
  get isDescribed(): boolean {
    return this.#description.isKnown
  }

  /** The worker's own metadata; it is the worker's word and nobody else's. */
  get metadata(): JsonObject {
    return this.#description.get().metadata
  }

  /** Of the bytes that are stored, 64 hex digits; undefined when the store knows none. */
  get sha256(): string | undefined {
    return this.#description.facts().sha256
  }

  /** Content type of the content, also of an encrypted one. */
  get contentType(): string {
    return this.#sealed()?.contentType ?? this.storedType
  }

  /** @internal Content type of the bytes that are stored. */
  get storedType(): string {
    return this.#description.facts().contentType
  }

  /** Whether it is encrypted, and can be read only with the private key. Its key, sizes, times and metadata are not. */
  get encrypted(): boolean {
    return this.#sealed() !== undefined
  }

  /** Bytes of the content: `size`, unless it is encrypted. 0 for one that says it is and cannot be. */
  get contentSize(): number {
    return this.encrypted ? (contentSize(this.size) ?? 0) : this.size
  }

  get createdAt(): Date {
    return this.#description.get().createdAt
  }

  /** How a directory was packed; null for a file. */
  get archive(): 'tar.gz' | null {
    return this.#description.get().archive
  }

  /** What of its description was malformed, in words; undefined when all is well. */
  get problem(): string | undefined {
    return this.#description.get().problem
  }

  /** Fetches metadata and digest of a result that was listed without them; does nothing when they are known. */
  async load(options: CallOptions = {}): Promise<this> {
    await this.#description.load(options)
    return this
  }

  /** The whole content. */
  async bytes({ maxBytes, ...options }: ReadAllOptions = {}): Promise<Uint8Array> {
    if (maxBytes !== undefined && this.size > maxBytes) {
      const size = await this.#content.sizeOf(options)
      if (size > maxBytes) {
        throw new ConductorError('TOO_LARGE', `${this.key} has ${size} bytes, more than ${maxBytes}`)
      }
    }
    return this.#content.readWhole(options, async (chunks) => {
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
  json(options?: ReadAllOptions): Promise<unknown>
  /** The content parsed as JSON and checked by a schema (zod, valibot, … or anything with `parse`); rejects with `INTEGRITY`, naming what is wrong. */
  json<T>(schema: StandardSchema<T>, options?: ReadAllOptions): Promise<T>
  json<T>(schema: ParsingSchema<T>, options?: ReadAllOptions): Promise<T>
  async json(
    first: JsonSchema<unknown> | ReadAllOptions = {},
    second: ReadAllOptions = {},
  ): Promise<unknown> {
    const [schema, options] = isSchema(first) ? [first, second] : [undefined, first]
    return parseJson(this.key, await this.text(options), schema)
  }

  /**
   * The content as it arrives. A tier that fails half-way is replaced by the next one at the same byte. The digest can only be
   * checked at the end: the stream then errors with `INTEGRITY` instead of closing, and what was read must be thrown away. Of an
   * encrypted result, every piece has been authenticated before.
   */
  stream(options: ReadOptions = {}): ReadableStream<Uint8Array> {
    const left = new AbortController()
    const chunks = this.#content.chunks({ ...options, signal: joinSignals(left.signal, options.signal) })
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const next = await chunks.next()
          if (next.done) controller.close()
          else controller.enqueue(next.value)
        },
        async cancel() {
          // Somebody may be waiting for a chunk, for which a generator would have its end wait too.
          left.abort()
          try {
            await chunks.return(undefined)
          } catch (error) {
            if (error !== left.signal.reason) throw error
          }
        },
      },
      { highWaterMark: 0 },
    )
  }

  /**
   * Writes the content to a file, which appears under its name only when it is whole and verified, and replaces what was there.
   * What a broken call leaves is gone on with by the next one, also of another process.
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    await this.#content.save(path, options)
  }

  /**
   * Deletes it on every tier, also those that were not known to hold it, and from the task's manifest. Rejects, naming them, when
   * tiers failed; calling it again then ends what was begun.
   */
  async delete({ signal }: CallOptions = {}): Promise<DeletedResult> {
    const { key, size } = this
    const locations = this.#isDeleted ? [] : this.locations
    const deleted = await deleteResult(this.#context, { key, size, locations }, { signal })
    this.#isDeleted = true
    return deleted
  }

  /**
   * Unpacks an archived directory into a folder, which must not exist or be empty and appears only when everything is in it,
   * verified. Entries that reach outside, links that lead outside, devices and bombs are refused, and nothing stays behind.
   */
  async extract(dir: string, options: ExtractOptions = {}): Promise<Extracted> {
    const limits = extractLimits(this.size)
    const { maxBytes = limits.maxBytes, maxEntries = limits.maxEntries, ...read } = options
    await this.load({ signal: options.signal })
    if (this.archive !== 'tar.gz' && !this.name.endsWith(ARCHIVE_SUFFIX)) {
      throw new ConductorError('UNSUPPORTED', `${this.key} is not an archive`)
    }
    const spec = { maxBytes, maxEntries, signal: options.signal }
    return this.#content.readWhole(read, (chunks) => extractArchive(chunks, dir, spec))
  }

  /**
   * A link that works without credentials until it expires; rejects with `UNSUPPORTED` when no tier can make one, and for an
   * encrypted result unless `encrypted` says that its encrypted bytes are wanted.
   */
  async url({ encrypted = false, ...options }: ResultUrlOptions = {}): Promise<string> {
    if (!encrypted && (await this.#content.mayBeSealed(options.signal)) && this.encrypted) {
      const line = `${this.key} is encrypted, and so is what a link leads to: pass encrypted: true to have one`
      throw new ConductorError('UNSUPPORTED', line)
    }
    for await (const store of this.#tiers.all({ signal: options.signal })) {
      if (store.url !== undefined) return store.url(this.key, options)
    }
    throw new ConductorError(
      'UNSUPPORTED',
      `${this.key} lies only in ${this.locations.join(', ')}: no links there`,
    )
  }

  /** @internal Digest of the content, 64 hex digits; for an encrypted result as its writer says. */
  async contentSha256({ signal }: CallOptions = {}): Promise<string | undefined> {
    return this.#content.sha256({ signal })
  }

  #sealed(): SealedType | undefined {
    return parseSealedType(this.storedType)
  }
}
