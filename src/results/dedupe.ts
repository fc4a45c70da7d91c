import type { Result } from './result.js'

/** A result, and others that have the same bytes. */
export interface DuplicatedResult {
  /** Key of the oldest, which stands in the list. */
  readonly key: string
  /** Keys of the others, oldest first. */
  readonly others: readonly string[]
}

/** Keeps of results with the same digest the oldest, in the order given. One without a digest has no equals. */
export function withoutDuplicates(
  results: readonly Result[],
  limit = Number.POSITIVE_INFINITY,
): { readonly found: Result[]; readonly duplicates: readonly DuplicatedResult[] } {
  const byDigest = new Map<string, Result[]>()
  for (const result of results) {
    const digest = digestOf(result)
    if (digest === undefined) continue
    const group = byDigest.get(digest)
    if (group === undefined) byDigest.set(digest, [result])
    else group.push(result)
  }
  for (const group of byDigest.values()) group.sort(byAge)
  const isKept = (result: Result): boolean => {
    const digest = digestOf(result)
    return digest === undefined || byDigest.get(digest)?.[0] === result
  }
  const found = results.filter(isKept).slice(0, limit)
  const duplicates = found.flatMap((kept) => {
    const [, ...others] = byDigest.get(digestOf(kept) ?? '') ?? []
    return others.length === 0 ? [] : [{ key: kept.key, others: others.map(({ key }) => key) }]
  })
  return { found, duplicates }
}

function digestOf(result: Result): string | undefined {
  // The size besides, since a digest is only a worker's word until its bytes are read.
  return result.isDescribed && result.sha256 !== undefined ? `${result.sha256} ${result.size}` : undefined
}

function byAge(a: Result, b: Result): number {
  if (a.timestamp !== b.timestamp) return a.timestamp < b.timestamp ? -1 : 1
  return a.key < b.key ? -1 : 1
}
