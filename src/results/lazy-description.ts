import type { CallOptions } from '../call-options.js'
import { ConductorError } from '../errors.js'
import type { BodyFacts, ResultDescription } from '../stores/result-store.js'
import type { ResultTiers } from './read-tiers.js'

/** Metadata and digest of a result, asked for when first needed unless a listing had them. */
export class LazyDescription {
  readonly #key: string
  readonly #tiers: ResultTiers
  #known: ResultDescription | undefined
  /** What came with the bytes. */
  #facts: BodyFacts | undefined

  constructor(key: string, tiers: ResultTiers, known: ResultDescription | undefined) {
    this.#key = key
    this.#tiers = tiers
    this.#known = known
  }

  get isKnown(): boolean {
    return this.#known !== undefined
  }

  /** What the bytes must be; undefined when nobody has asked for it yet. */
  get known(): BodyFacts | undefined {
    return this.#known ?? this.#facts
  }

  /** Throws `INVALID_OPTION` when nobody has asked for it yet. */
  get(): ResultDescription {
    return this.#known ?? this.#refuse()
  }

  /** What the bytes must be; throws `INVALID_OPTION` when nobody has asked for it yet. */
  facts(): BodyFacts {
    return this.known ?? this.#refuse()
  }

  /** Remembers what a tier said when it was asked for the bytes. */
  note(facts: BodyFacts): void {
    this.#facts ??= facts
  }

  /** The first tier's word that can tell. */
  async load(options: CallOptions): Promise<ResultDescription> {
    this.#known ??= await this.#tiers.ask('describe', async (store) => {
      const description = await store.describe(this.#key, options)
      if (description !== undefined) return description
      throw new ConductorError('NOT_FOUND', `${this.#key} is not in ${store.name}`)
    })
    return this.#known
  }

  /** What the bytes must be, by the word of whoever was asked first. */
  async loadFacts(options: CallOptions): Promise<BodyFacts> {
    return this.known ?? this.load(options)
  }

  #refuse(): never {
    throw new ConductorError(
      'INVALID_OPTION',
      `${this.#key} was listed with metadata: false; call load() before asking for more than key and size`,
    )
  }
}
