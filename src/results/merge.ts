import { compareKeys } from '../protocol/key.js'

/**
 * Merges listings that are each in key order into one in key order, with everything that shares a key in one group.
 * Lazy: no listing is read further than the consumer has come. Leaving the loop ends every listing.
 */
export function mergeByKey<T extends { readonly key: string }>(
  sources: readonly AsyncIterable<T>[],
): AsyncIterable<readonly T[]> {
  const [only] = sources
  return only !== undefined && sources.length === 1 ? eachAlone(only) : merge(sources)
}

/** Not a generator: of thousands of keys, each would wait for several promises more. */
function eachAlone<T>(source: AsyncIterable<T>): AsyncIterable<readonly T[]> {
  return {
    [Symbol.asyncIterator]: () => {
      const iterator = source[Symbol.asyncIterator]()
      return {
        next: async () => {
          const next = await iterator.next()
          return next.done ? { done: true, value: undefined } : { done: false, value: [next.value] }
        },
        return: async () => {
          await iterator.return?.()
          return { done: true, value: undefined }
        },
      }
    },
  }
}

async function* merge<T extends { readonly key: string }>(
  sources: readonly AsyncIterable<T>[],
): AsyncGenerator<readonly T[], void, undefined> {
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
