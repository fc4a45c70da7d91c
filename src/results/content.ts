import type { CallOptions } from '../call-options.js'
import { decryptChunks, readContentDigest } from '../encryption/decrypt-chunks.js'
import { decryptFile } from '../encryption/decrypt-file.js'
import { type Decryptor, keyMissing } from '../encryption/decryptor.js'
import { contentSize } from '../protocol/encryption/sealed-format.js'
import { parseSealedType } from '../protocol/encryption/sealed-type.js'
import type { BodyFacts, ResultStore } from '../stores/result-store.js'
import type { LazyDescription } from './lazy-description.js'
import { hasPart } from './part-name.js'
import type { ReadOptions, SaveOptions } from './read-options.js'
import type { OpenedTier, ResultTiers } from './read-tiers.js'
import { listSiblings, type SaveSpec, saveResult } from './save.js'
import { DigestCheck, verifiedChunks } from './verify.js'

type Chunks = AsyncGenerator<Uint8Array, void, undefined>

/** What a result's content is read from. */
export interface ContentParts {
  readonly key: string
  /** Bytes that are stored. */
  readonly size: number
  readonly tiers: ResultTiers
  readonly description: LazyDescription
  /** Undefined where nothing is said about encryption. */
  readonly decryptor: Decryptor | undefined
}

/** The content of a result: the bytes of its tiers, verified and, of an encrypted one, decrypted. */
export class ResultContent {
  readonly #parts: ContentParts

  constructor(parts: ContentParts) {
    this.#parts = parts
  }

  /** How many bytes reading with these options gives. */
  async sizeOf(options: ReadOptions): Promise<number> {
    const { size } = this.#parts
    return (await this.#decryptorFor(options)) === undefined ? size : (contentSize(size) ?? 0)
  }

  /** Makes sure that it is known whether it is encrypted. False where nobody knows and nothing is said about encryption. */
  async mayBeSealed(signal: AbortSignal | undefined): Promise<boolean> {
    const { description, decryptor } = this.#parts
    if (description.known === undefined && decryptor === undefined) return false
    await description.loadFacts({ signal })
    return true
  }

  /** Has the whole content consumed; again, from the next tier, when that fails. */
  async readWhole<T>(
    options: ReadOptions,
    consume: (chunks: AsyncIterable<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    const decryptor = await this.#decryptorFor(options)
    return this.#parts.tiers.read({ signal: options.signal }, (store) =>
      consume(this.#decrypted(this.#chunksFrom(store, options), decryptor)),
    )
  }

  /** The content as it comes; a tier that fails half-way is replaced by the next one at the same byte. */
  async *chunks(options: ReadOptions): Chunks {
    const { signal, verify = true } = options
    const decryptor = await this.#decryptorFor(options)
    const check = verify ? new DigestCheck(await this.#parts.description.loadFacts({ signal })) : undefined
    yield* this.#decrypted(this.#parts.tiers.chunksFromAny(check, { signal }), decryptor)
  }

  /** Resolves once the content is in the file at the path, whole and verified; what it was before is replaced. */
  async save(path: string, options: SaveOptions): Promise<void> {
    const { signal, verify = true, onBytes } = options
    const { tiers, description, key } = this.#parts
    const siblings = options.siblings ?? (await listSiblings(path))
    const opened = verify ? await this.#openUnknown(path, siblings, signal) : undefined
    try {
      const expected: BodyFacts | undefined = verify ? await description.loadFacts({ signal }) : undefined
      const decryptor = await this.#decryptorFor(options)
      const convert: SaveSpec['convert'] =
        decryptor && ((file, size) => decryptFile(file, size, decryptor, key))
      await saveResult(path, { tiers, opened, expected, convert, onBytes, siblings, signal })
    } finally {
      await opened?.close()
    }
  }

  /** Digest of the content, 64 hex digits; for an encrypted result as its writer says. */
  async sha256({ signal }: CallOptions): Promise<string | undefined> {
    const { key, size, tiers, description } = this.#parts
    const decryptor = await this.#decryptorFor({ signal })
    if (decryptor === undefined) return description.facts().sha256
    return tiers.read({ signal }, (store) =>
      readContentDigest((offset) => tiers.chunks(store, { signal, offset }), decryptor, { key, size }),
    )
  }

  /**
   * Opens the first tier where what the bytes must be is not known and comes with them. Undefined where that has to be asked
   * for: also for a file that may be there in part, since only who knows can go on with it.
   */
  async #openUnknown(
    path: string,
    siblings: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<OpenedTier | undefined> {
    const { description, tiers } = this.#parts
    if (description.known !== undefined || hasPart(path, siblings)) return undefined
    const opened = await tiers.open({ signal })
    if (opened !== undefined) description.note(opened.about)
    return opened
  }

  /** What decrypts it; undefined when it is not to be decrypted. Rejects with `DECRYPTION_KEY_MISSING` when nothing here can. */
  async #decryptorFor({
    signal,
    verify = true,
    decrypt = true,
  }: ReadOptions): Promise<Decryptor | undefined> {
    const { key, description, decryptor } = this.#parts
    if (!decrypt || (!verify && !(await this.mayBeSealed(signal)))) return undefined
    const sealed = parseSealedType((await description.loadFacts({ signal })).contentType)
    if (sealed === undefined) return undefined
    if (decryptor === undefined || (sealed.keyId !== undefined && !decryptor.has(sealed.keyId))) {
      throw keyMissing(key, sealed.keyId)
    }
    return decryptor
  }

  #decrypted(chunks: Chunks, decryptor: Decryptor | undefined): Chunks {
    return decryptor === undefined ? chunks : decryptChunks(chunks, decryptor, this.#parts.key)
  }

  async *#chunksFrom(store: ResultStore, { signal, verify = true }: ReadOptions): Chunks {
    const check = verify ? new DigestCheck(await this.#parts.description.loadFacts({ signal })) : undefined
    const chunks = this.#parts.tiers.chunks(store, { signal })
    yield* check === undefined ? chunks : verifiedChunks(chunks, check, store.name)
  }
}
