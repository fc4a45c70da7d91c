/** A page of a listing: entries and rolled-up prefixes, each in key order. */
export interface KeyPage<T> {
  readonly entries: readonly (readonly [key: string, value: T])[]
  readonly prefixes: readonly string[]
  /** The last key or prefix on the page, when there is more after it. */
  readonly next: string | undefined
}

/** Which keys to list. */
export interface KeyQuery {
  readonly prefix: string
  /** Rolls keys up to this text, looked for after the prefix, into one prefix. */
  readonly delimiter: string | undefined
  /** List only what sorts after this key or rolled-up prefix. */
  readonly after: string | undefined
  /** Counts entries and prefixes. */
  readonly limit: number
}

/** A map ordered by the UTF-8 bytes of its keys, as S3 lists them. */
export class KeyIndex<T> {
  readonly #values = new Map<string, T>()
  #keys: string[] = []

  /** Builds an index in one go, which sorts once. */
  static from<T>(entries: Iterable<readonly [string, T]>): KeyIndex<T> {
    const index = new KeyIndex<T>()
    for (const [key, value] of entries) index.#values.set(key, value)
    index.#keys = [...index.#values.keys()].sort(compareKeys)
    return index
  }

  get size(): number {
    return this.#keys.length
  }

  get(key: string): T | undefined {
    return this.#values.get(key)
  }

  set(key: string, value: T): void {
    if (!this.#values.has(key)) this.#keys.splice(this.#find(key), 0, key)
    this.#values.set(key, value)
  }

  delete(key: string): void {
    if (this.#values.delete(key)) this.#keys.splice(this.#find(key), 1)
  }

  /** One page of the listing; costs no more than what is on it, however much a prefix rolls up. */
  page({ prefix, delimiter, after, limit }: KeyQuery): KeyPage<T> {
    const entries: [string, T][] = []
    const prefixes: string[] = []
    let last: string | undefined
    let i = this.#find(prefix)
    if (after !== undefined && compareKeys(after, prefix) >= 0)
      i = this.#firstFrom(i, (key) => compareKeys(key, after) > 0)
    while (i < this.#keys.length) {
      const key = this.#keys[i] ?? ''
      if (!key.startsWith(prefix)) break
      const rolled = rollUp(key, prefix, delimiter)
      const isListed = rolled !== undefined && after?.startsWith(rolled) === true
      if (!isListed) {
        if (entries.length + prefixes.length === limit) return { entries, prefixes, next: last }
        last = rolled ?? key
        if (rolled === undefined) entries.push([key, this.#values.get(key) as T])
        else prefixes.push(rolled)
      }
      i = rolled === undefined ? i + 1 : this.#firstFrom(i, (other) => !other.startsWith(rolled))
    }
    return { entries, prefixes, next: undefined }
  }

  /** Where the key is, or belongs. */
  #find(key: string): number {
    return this.#firstFrom(0, (other) => compareKeys(other, key) >= 0)
  }

  /** The first position from `low` on where a condition that stays true once it is true holds. */
  #firstFrom(low: number, holds: (key: string) => boolean): number {
    let from = low
    let to = this.#keys.length
    while (from < to) {
      const middle = (from + to) >>> 1
      if (holds(this.#keys[middle] ?? '')) to = middle
      else from = middle + 1
    }
    return from
  }
}

/** Orders strings by their UTF-8 bytes, where JavaScript's own order goes by UTF-16 units. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const unitA = a.charCodeAt(i)
    const unitB = b.charCodeAt(i)
    if (unitA !== unitB) return codePointRank(unitA) - codePointRank(unitB)
  }
  return a.length - b.length
}

/** Surrogates stand for code points above all others. */
function codePointRank(unit: number): number {
  if (unit < 0xd800) return unit
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800
}

function rollUp(key: string, prefix: string, delimiter: string | undefined): string | undefined {
  if (delimiter === undefined || delimiter === '') return undefined
  const at = key.indexOf(delimiter, prefix.length)
  return at === -1 ? undefined : key.slice(0, at + delimiter.length)
}
