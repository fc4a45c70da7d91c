import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compareKeys } from '../../../src/protocol/key.js'
import { mergeByKey } from '../../../src/results/merge.js'
import { collect } from '../../support/records.js'

type Item = { key: string; from: number }

async function* listing(keys: readonly string[], from: number, onRead = () => {}, onEnd = () => {}) {
  try {
    for (const key of keys) {
      onRead()
      yield { key, from }
    }
  } finally {
    onEnd()
  }
}

describe('mergeByKey', () => {
  it('yields every key once, in order, with everything that has it', async () => {
    const lists = fc.array(fc.uniqueArray(fc.string({ unit: 'binary', maxLength: 3 }), { maxLength: 8 }), {
      maxLength: 4,
    })
    await fc.assert(
      fc.asyncProperty(lists, async (all) => {
        const sorted = all.map((keys) => [...keys].sort(compareKeys))
        const groups = await collect(mergeByKey(sorted.map((keys, i) => listing(keys, i))))
        const expected = [...new Set(all.flat())].sort(compareKeys)
        expect(groups.map(([first]) => first?.key)).toEqual(expected)
        for (const group of groups) {
          const key = (group[0] as Item).key
          const holders = all.flatMap((keys, i) => (keys.includes(key) ? [i] : []))
          expect(group.map(({ from }) => from)).toEqual(holders)
        }
      }),
    )
  })

  it('reads no further than asked, and ends every listing when left', async () => {
    let read = 0
    let ended = 0
    const keys = Array.from({ length: 100 }, (_, i) => String(i).padStart(3, '0'))
    const sources = [0, 1].map((from) =>
      listing(
        keys,
        from,
        () => read++,
        () => ended++,
      ),
    )
    for await (const [first] of mergeByKey(sources)) if (first?.key === '004') break
    expect(read).toBeLessThanOrEqual(2 * 6)
    expect(ended).toBe(2)
  })
})
