import type { ResultRecord } from '../../protocol/record.js'
import type { GivenUp } from './receipt.js'

/** Enough to name a result by. */
export type KnownResult = Pick<ResultRecord, 'key' | 'name' | 'sha256' | 'stored'>

/** More of them a certificate only counts. */
const MAX_NAMED = 20

/**
 * Results that a sandbox was seen to hold and that are not among those of which it is known what became of them.
 *
 * @param where what became of the sandbox
 */
export function findGivenUp(
  known: Iterable<KnownResult>,
  accounted: readonly KnownResult[],
  where: string,
): readonly GivenUp[] {
  const keys = new Set(accounted.map(({ key }) => key))
  // A result that was carried may have another key by now.
  const contents = new Set(accounted.map(contentOf))
  const given: GivenUp[] = []
  for (const result of known) {
    if (keys.has(result.key) || contents.has(contentOf(result))) continue
    const claimed = result.stored.map(({ tier }) => tier).join(' and ')
    const reason =
      claimed === '' ? where : `${where}; its worker said that it is in ${claimed}, where it was not found`
    given.push({ key: result.key, reason })
  }
  return given
}

/** What a certificate says of them. */
export function tellGivenUp(given: readonly GivenUp[]): readonly string[] {
  if (given.length === 0) return []
  const named = given.slice(0, MAX_NAMED).map(({ key }) => key)
  const more = given.length > named.length ? ` and ${given.length - named.length} more` : ''
  return [`${given.length} result(s) that it held were given up: ${named.join(', ')}${more}`]
}

function contentOf({ name, sha256 }: KnownResult): string {
  return `${sha256} ${name}`
}
