import { describe, expect, it, vi } from 'vitest'
import { ConductorError } from '../../../src/errors.js'
import { nowMs } from '../../../src/persister/clock.js'
import { askForWait, withRetry } from '../../../src/persister/remote/retry.js'

const unavailable = (): ConductorError => new ConductorError('UNAVAILABLE', 'busy', { retryable: true })

describe('withRetry', () => {
  it('gives up at once on what will not change', async () => {
    const attempt = vi.fn(async () => {
      throw new ConductorError('ACCESS_DENIED', 'no')
    })
    await expect(withRetry(attempt, { attempts: 8, deadlineAtMs: 1e9 })).rejects.toThrow('no')
    expect(attempt).toHaveBeenCalledTimes(1)
  })

  it('does not begin an attempt after its deadline', async () => {
    const attempt = vi.fn(async () => {
      throw unavailable()
    })
    await expect(withRetry(attempt, { attempts: 8, deadlineAtMs: nowMs() + 50 })).rejects.toThrow('busy')
    expect(attempt).toHaveBeenCalledTimes(1)
  })

  it('gives up when it is asked to stay away for longer than it has', async () => {
    const attempt = vi.fn(async () => {
      throw askForWait(unavailable(), '3600')
    })
    const call = withRetry(attempt, { attempts: 2, deadlineAtMs: nowMs() + 10_000 })
    await expect(call).rejects.toThrow('busy')
    expect(attempt).toHaveBeenCalledTimes(1)
  })

  it('stops waiting when it is told to, with the reason given', async () => {
    const stop = new AbortController()
    const reason = new Error('enough')
    const call = withRetry(
      async () => {
        queueMicrotask(() => stop.abort(reason))
        throw unavailable()
      },
      { attempts: 8, deadlineAtMs: nowMs() + 60_000, signal: stop.signal },
    )
    await expect(call).rejects.toBe(reason)
  })
})
