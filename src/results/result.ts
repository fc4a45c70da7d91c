import type { CallOptions } from '../call-options.js'
import { decryptChunks, readContentDigest } from '../encryption/decrypt-chunks.js'
import { decryptFile } from '../encryption/decrypt-file.js'
import { type Decryptor, keyMissing } from '../encryption/decryptor.js'
import { ConductorError } from '../errors.js'
import { contentSize } from '../protocol/encryption/sealed-format.js'
import { parseSealedType, type SealedType } from '../protocol/encryption/sealed-type.js'
import { ARCHIVE_SUFFIX, splitKey } from '../protocol/key.js'
import type { JsonObject } from '../protocol/record.js'
import type { ResultDescription, ResultStore, StoreTier, UrlOptions } from '../stores/result-store.js'
import type { ResultsContext } from './context.js'
import { type DeletedResult, deleteResult } from './delete-results.js'
import { type Extracted, extractArchive, extractLimits } from './extract.js'
import {
  isSchema,
  type JsonSchema,
  type ParsingSchema,
  parseJson,
  type StandardSchema,
} from './parse-json.js'
import { ResultTiers } from './read-tiers.js'
import { type SaveSpec, saveResult } from './save.js'
import { DigestCheck, verifiedChunks } from './verify.js'

/** Options for reading a result. */
export interface ReadOptions extends CallOptions {
  /** Whether the bytes are checked against the digest that was stored with them. @default true */
  readonly verify?: boolean | undefined
  /** Whether an encrypted result is decrypted; otherwise its bytes come as they are stored. @default true */
  readonly decrypt?: boolean | undefined
}

/** Options for reading a result into memory. */
export interface ReadAllOptions extends ReadOptions {
  /** Refuses larger results with `TOO_LARGE`, in bytes. @default no limit */
  readonly maxBytes?: number | undefined
}

/** Options for a link to a result. */
export interface ResultUrlOptions extends UrlOptions {
  /** Also makes a link to an encrypted result, which leads to its encrypted bytes. @default false */
  readonly encrypted?: boolean | undefined
}

/** Options for saving a result. */
export interface SaveOptions extends ReadOptions {
  /** Told how many bytes are there so far of `size`, as they come; with what an earlier call left. */
  readonly onBytes?: ((sizeBytes: number) => void) | undefined
  /**
   * The names in the file's folder, so that saving many into one does not list it for each.
   * @internal
   */
  readonly siblings?: readonly string[] | undefined
}

/** Options for unpacking a result. */
export interface ExtractOptions extends ReadOptions {
  /** Refuses archives that unpack to more, in bytes. @default 200 times the archive's size, and 256 MiB */
  readonly maxBytes?: number | undefined
  /** Refuses archives with more files, folders and links. @default 1,000,000 */
  readonly maxEntries?: number | undefined
}

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
  readonly #reader: ResultTiers
  readonly #context: ResultsContext
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
    this.#context = parts.context
    this.#reader = new ResultTiers(parts.key, parts.size, parts.stores, parts.context.onProblem)
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

  /** Of the bytes that are stored, 64 hex digits; undefined when the store knows none. */
  get sha256(): string | undefined {
    return this.#known().sha256
  }

  /** Content type of the content, also of an encrypted one. */
  get contentType(): string {
    return this.#sealed()?.contentType ?? this.storedType
  }

  /** @internal Content type of the bytes that are stored. */
  get storedType(): string {
    return this.#known().contentType
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
    this.#description ??= await this.#reader.try('describe', async (store) => {
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
      const size = (await this.#decryptorFor(options)) === undefined ? this.size : this.contentSize
      if (size > maxBytes) {
        throw new ConductorError('TOO_LARGE', `${this.key} has ${size} bytes, more than ${maxBytes}`)
      }
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
    const chunks = this.#chunksFromAny(options)
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

  /**
   * Writes the content to a file, which appears under its name only when it is whole and verified, and replaces what was there.
   * What a broken call leaves is gone on with by the next one, also of another process.
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    const { signal, verify = true, onBytes, siblings } = options
    const expected = verify ? (await this.load({ signal })).#known() : undefined
    const decryptor = await this.#decryptorFor(options)
    const convert: SaveSpec['convert'] =
      decryptor && ((file, size) => decryptFile(file, size, decryptor, this.key))
    await saveResult(path, { tiers: this.#reader, expected, convert, onBytes, siblings, signal })
  }

  /**
   * Deletes it on every tier, also those that were not known to hold it, and from the task's manifest. Rejects, naming them, when
   * tiers failed; calling it again then ends what was begun.
   */
  async delete({ signal }: CallOptions = {}): Promise<DeletedResult> {
    return deleteResult(this.#context, this, { signal })
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
    return this.#readWhole(read, (chunks) => extractArchive(chunks, dir, { maxBytes, maxEntries }))
  }

  /**
   * A link that works without credentials until it expires; rejects with `UNSUPPORTED` when no tier can make one, and for an
   * encrypted result unless `encrypted` says that its encrypted bytes are wanted.
   */
  async url({ encrypted = false, ...options }: ResultUrlOptions = {}): Promise<string> {
    if (!encrypted && (await this.#mayBeSealed(options.signal)) && this.encrypted) {
      const line = `${this.key} is encrypted, and so is what a link leads to: pass encrypted: true to have one`
      throw new ConductorError('UNSUPPORTED', line)
    }
    for (const store of this.#stores) {
      if (store.url !== undefined) return store.url(this.key, options)
    }
    throw new ConductorError(
      'UNSUPPORTED',
      `${this.key} lies only in ${this.locations.join(', ')}: no links there`,
    )
  }

  /** @internal Digest of the content, 64 hex digits; for an encrypted result as its writer says. */
  async contentSha256({ signal }: CallOptions = {}): Promise<string | undefined> {
    const decryptor = await this.#decryptorFor({ signal })
    if (decryptor === undefined) return this.sha256
    return this.#reader.try('read', (store) =>
      readContentDigest((offset) => this.#reader.chunks(store, { signal, offset }), decryptor, this),
    )
  }

  #sealed(): SealedType | undefined {
    return parseSealedType(this.storedType)
  }

  /** Makes sure that it is known whether it is encrypted. False where nobody knows and nothing is said about encryption. */
  async #mayBeSealed(signal: AbortSignal | undefined): Promise<boolean> {
    if (!this.isDescribed && this.#context.decryptor === undefined) return false
    await this.load({ signal })
    return true
  }

  /** What decrypts it; undefined when it is not to be decrypted. Rejects with `DECRYPTION_KEY_MISSING` when nothing here can. */
  async #decryptorFor({
    signal,
    verify = true,
    decrypt = true,
  }: ReadOptions): Promise<Decryptor | undefined> {
    if (!decrypt) return undefined
    if (verify) await this.load({ signal })
    else if (!(await this.#mayBeSealed(signal))) return undefined
    const sealed = this.#sealed()
    if (sealed === undefined) return undefined
    const { decryptor } = this.#context
    if (decryptor === undefined || (sealed.keyId !== undefined && !decryptor.has(sealed.keyId))) {
      throw keyMissing(this.key, sealed.keyId)
    }
    return decryptor
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
    const decryptor = await this.#decryptorFor(options)
    return this.#reader.try('read', (store) =>
      consume(this.#decrypted(this.#chunksFrom(store, options), decryptor)),
    )
  }

  #decrypted(
    chunks: AsyncGenerator<Uint8Array, void, undefined>,
    decryptor: Decryptor | undefined,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    return decryptor === undefined ? chunks : decryptChunks(chunks, decryptor, this.key)
  }

  async *#chunksFrom(
    store: ResultStore,
    { signal, verify = true }: ReadOptions,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const check = verify ? new DigestCheck((await this.load({ signal })).#known()) : undefined
    const chunks = this.#reader.chunks(store, { signal })
    yield* check === undefined ? chunks : verifiedChunks(chunks, check, store.name)
  }

  async *#chunksFromAny(options: ReadOptions): AsyncGenerator<Uint8Array, void, undefined> {
    const { signal, verify = true } = options
    const decryptor = await this.#decryptorFor(options)
    const check = verify ? new DigestCheck((await this.load({ signal })).#known()) : undefined
    yield* this.#decrypted(this.#reader.chunksFromAny(check, { signal }), decryptor)
  }
}
