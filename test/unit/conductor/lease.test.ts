import { afterEach, expect, it, vi } from 'vitest'
import { LEASE_MS, Lease } from '../../../src/conductor/lease.js'
import type { RemoteSandbox } from '../../../src/sandbox/remote-sandbox.js'

afterEach(() => {
  vi.useRealTimers()
})

it('a lease is renewed past the worker’s time only while it is held', async () => {
  vi.useFakeTimers()
  let extensions = 0
  const extend = async (): Promise<void> => {
    extensions += 1
  }
  const sandbox: Pick<RemoteSandbox, 'extend'> = { extend }
  const lease = new Lease(sandbox, new Date(Date.now() + LEASE_MS / 2), {
    extended: () => {},
    gone: () => {},
  })
  try {
    await lease.hold()
    expect(extensions).toBe(0)
    await vi.advanceTimersByTimeAsync(LEASE_MS)
    expect(extensions).toBe(3)
    lease.release()
    await vi.advanceTimersByTimeAsync(LEASE_MS)
    expect(extensions).toBe(3)
    // What is left of it may be next to nothing.
    await lease.hold()
    expect(extensions).toBe(4)
  } finally {
    lease.end()
  }
})
