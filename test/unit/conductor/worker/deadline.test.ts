import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Deadline } from '../../../../src/conductor/worker/deadline.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** After how many milliseconds each time it told. */
function start(leftMs: number, graceMs: number): { readonly told: number[]; readonly deadline: Deadline } {
  const beganAt = Date.now()
  const told: number[] = []
  const at = new Date(beganAt + leftMs)
  return { told, deadline: new Deadline(at, graceMs, () => void told.push(Date.now() - beganAt)) }
}

it('tells a grace before the end, but not in the first half of what is left', () => {
  for (const [leftMs, graceMs, afterMs] of [
    [60_000, 10_000, 50_000],
    [8_000, 5_000, 4_000],
    [1_000, 0, 1_000],
    [-5_000, 1_000, 0],
  ] as const) {
    const { told } = start(leftMs, graceMs)
    vi.advanceTimersByTime(600_000)
    expect(told).toEqual([afterMs])
  }
})

it('tells again where it is moved, and nothing once it is over', () => {
  const { told, deadline } = start(60_000, 10_000)
  vi.advanceTimersByTime(50_000)
  deadline.move(new Date(Date.now() + 30_000))
  deadline.move(new Date(Date.now() + 40_000))
  vi.advanceTimersByTime(600_000)
  expect(told).toEqual([50_000, 80_000])
  deadline.move(new Date(Date.now() + 40_000))
  deadline.end()
  vi.advanceTimersByTime(600_000)
  expect(told).toHaveLength(2)
})
