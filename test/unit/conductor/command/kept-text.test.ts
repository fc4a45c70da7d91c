import { describe, expect, it } from 'vitest'
import { KeptText } from '../../../../src/conductor/command/kept-text.js'

describe('text that is kept', () => {
  it('is whole up to its limit', () => {
    const kept = new KeptText(10)
    for (const text of ['abc', 'defg', 'hij']) kept.add(text)
    expect(kept.text).toBe('abcdefghij')
  })

  it('is its start and its end beyond that, however it came', () => {
    const all = Array.from({ length: 100 }, (_, index) => String(index % 10)).join('')
    for (const piece of [1, 3, 7, 40, 100]) {
      const kept = new KeptText(10)
      for (let at = 0; at < all.length; at += piece) kept.add(all.slice(at, at + piece))
      expect(kept.text).toBe('01234\n[90 characters left out]\n56789')
    }
  })
})
