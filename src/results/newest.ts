import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { compareKeys } from '../protocol/key.js'
import type { Result } from './result.js'

const CONCURRENT_HEADS = 16

/**
 * The newest of some results, described; undefined of none. Keys have whole seconds, and within one they sort by name, so that
 * `checkpoint-9` would come after `checkpoint-10`: there the moment that the worker noted decides.
 */
export async function newestOf(
  results: readonly Result[],
  options: CallOptions,
): Promise<Result | undefined> {
  const second = results
    .map(({ timestamp }) => timestamp)
    .sort()
    .at(-1)
  const candidates = results.filter(({ timestamp }) => timestamp === second)
  const limit = pLimit(CONCURRENT_HEADS)
  const ends = await Promise.allSettled(candidates.map((result) => limit(() => result.load(options))))
  let newest: Result | undefined
  for (const end of ends) {
    if (end.status === 'rejected') throw end.reason
    if (newest === undefined || isNewer(end.value, newest)) newest = end.value
  }
  return newest
}

function isNewer(one: Result, other: Result): boolean {
  const laterMs = one.createdAt.getTime() - other.createdAt.getTime()
  return laterMs > 0 || (laterMs === 0 && compareKeys(one.key, other.key) > 0)
}
