import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type CountedResult, Quota } from '../../../src/grants/broker/quota.js'

const MINUTE = 60_000
const refusal = { code: 'TOO_LARGE' }

describe('a quota', () => {
  const stored: CountedResult[] = []
  const open = new Set<string>()
  const make = (limits: { maxResults?: number; maxTaskBytes?: number }): Quota =>
    new Quota(
      { maxResultBytes: 100, ...limits },
      async function* () {
        yield* [...stored]
      },
      (key) => open.has(key),
    )
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
    stored.length = 0
    open.clear()
  })

  it('counts what came after it was first looked at, when what was signed for is over', async () => {
    const quota = make({ maxTaskBytes: 20 })
    await quota.reserve('a', 20)
    stored.push({ key: 'a', sizeBytes: 20 })
    vi.advanceTimersByTime(20 * MINUTE)
    await expect(quota.reserve('b', 20)).rejects.toMatchObject(refusal)
    await expect(quota.reserve('a', 20)).resolves.toBeUndefined()
  })

  it('gives back the place of what was signed for and never came', async () => {
    const quota = make({ maxResults: 1 })
    await quota.reserve('a', 1)
    await expect(quota.reserve('b', 1)).rejects.toMatchObject(refusal)
    vi.advanceTimersByTime(20 * MINUTE)
    await quota.reserve('b', 1)
  })

  it('keeps the place of an upload whose parts lie in the store for as long as it is open', async () => {
    const quota = make({ maxTaskBytes: 20 })
    await quota.reserve('a', 20)
    open.add('a')
    vi.advanceTimersByTime(24 * 60 * MINUTE)
    await expect(quota.reserve('b', 20)).rejects.toMatchObject(refusal)
    open.delete('a')
    await quota.reserve('b', 20)
  })

  it('gives the last place to one of two that ask at once', async () => {
    for (const limits of [{ maxResults: 1 }, { maxTaskBytes: 10 }]) {
      const quota = make(limits)
      const asked = await Promise.allSettled(['a', 'b', 'c'].map((key) => quota.reserve(key, 10)))
      expect(asked.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected', 'rejected'])
    }
  })
})
