import { expect, it } from 'vitest'
import type { EndpointBackend } from '../../../src/endpoint/backends/endpoint-backend.js'
import { resolveHandlerOptions } from '../../../src/endpoint/options.js'
import { TaskQuotas } from '../../../src/endpoint/task-quotas.js'

/** Quotas of 100 bytes over storage that holds what the test says, and answers when the test lets it. */
function quotasOver(
  kept: { sizeBytes: number },
  answer: () => Promise<void> = async () => undefined,
): TaskQuotas {
  const backend = {
    commit: undefined,
    usage: async () => {
      const { sizeBytes } = kept
      await answer()
      return { count: 1, sizeBytes }
    },
  } as unknown as EndpointBackend
  const { limits } = resolveHandlerOptions({ backend, authenticate: 'none', limits: { maxTaskBytes: 100 } })
  return new TaskQuotas(backend, limits)
}

const exceeded = { code: 'task_quota_exceeded' }

it('misses nothing that is being stored while a task is counted anew', async () => {
  const kept = { sizeBytes: 0 }
  const quotas = quotasOver(kept)
  const end = await quotas.reserve('t', 60)
  // Something else of the task is deleted meanwhile.
  quotas.forget('t')
  const next = quotas.reserve('t', 60)
  next.catch(() => undefined)
  await new Promise((resolve) => setImmediate(resolve))
  kept.sizeBytes = 60
  end(true)
  await expect(next).rejects.toMatchObject(exceeded)
  // Another task waits for nobody, and what is not stored makes room.
  const more = await quotas.reserve('t', 40)
  more(false)
  await quotas.reserve('t', 40)
  await quotas.reserve('u', 40)
})

it('goes by no count that is over, and counts anew where nobody knows what was stored', async () => {
  const kept = { sizeBytes: 0 }
  const waiting: (() => void)[] = []
  const quotas = quotasOver(kept, () => new Promise((resolve) => waiting.push(resolve)))
  const racing = [quotas.reserve('t', 60)]
  quotas.forget('t')
  racing.push(quotas.reserve('t', 60))
  const outcomes = Promise.allSettled(racing)
  await expect.poll(() => waiting.length).toBe(2)
  for (const answer of waiting.splice(0)) answer()
  const [one, two] = await outcomes
  expect([one?.status, two?.status].sort()).toEqual(['fulfilled', 'rejected'])
  const stored = [one, two].find((outcome) => outcome?.status === 'fulfilled')
  kept.sizeBytes = 60
  if (stored?.status === 'fulfilled') stored.value('unknown')
  const next = quotas.reserve('t', 60)
  next.catch(() => undefined)
  await expect.poll(() => waiting.length).toBe(1)
  waiting[0]?.()
  await expect(next).rejects.toMatchObject(exceeded)
})
