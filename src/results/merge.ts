import { compareKeys } from '../protocol/key.js'

/**
 * Merges listings that are each in key order into one in key order, with everything that shares a key in one group.
 * Lazy: no listing is read further than the consumer has come. Leaving the loop ends every listing.
 */
export async function* mergeByKey<T extends { readonly key: string }>(
  sources: readonly AsyncIterable<T>[],
): AsyncGenerator<readonly T[], void, undefined> {
  const [only] = sources
  if (only !== undefined && sources.length === 1) {
    for await (const item of only) yield [item]
    return
  }
  const iterators = sources.map((source) => source[Symbol.asyncIterator]())
  try {
    const heads = await Promise.all(iterators.map((iterator) => iterator.next()))
    for (;;) {
      let least: string | undefined
      for (const head of heads) {
        if (!head.done && (least === undefined || compareKeys(head.value.key, least) < 0)) {
          least = head.value.key
        }
      }
      if (least === undefined) return
      const group: T[] = []
      await Promise.all(
        iterators.map(async (iterator, i) => {
          const head = heads[i]
          if (head === undefined || head.done || head.value.key !== least) return
          group[i] = head.value
          heads[i] = await iterator.next()
        }),
      )
      // Sources keep their order within a group: the first is the preferred one.
      yield group.filter((item) => item !== undefined)
    }
  } finally {
    await Promise.all(iterators.map((iterator) => iterator.return?.()))
  }
}
