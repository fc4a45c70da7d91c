import { once } from 'node:events'
import { expect, it } from 'vitest'
import { LateSeals } from '../../../../src/conductor/end/late-seals.js'

it('stops at its limit, also while a try is under way that knows nothing of it', async () => {
  const seals = new LateSeals()
  const tried = new Promise<void>((told) => {
    seals.add([
      {
        taskId: 'hanging',
        write: async ({ signal }) => {
          told()
          await once(signal as AbortSignal, 'abort')
          throw signal?.reason
        },
      },
    ])
  })
  const others = seals.tryNow()
  await tried
  await seals.finish({ signal: AbortSignal.timeout(10) })
  expect(seals.has('hanging')).toBe(true)
  await others
})

it('goes on after a try that went wrong for no reason that it knows', async () => {
  const seals = new LateSeals()
  let tries = 0
  const done = new Promise<void>((told) => {
    seals.add([
      {
        taskId: 'defect',
        write: async () => {
          if (++tries < 3) throw new TypeError('a defect')
          told()
        },
      },
    ])
  })
  // The one that asked hears of it; by itself it only tries again.
  await expect(seals.tryNow()).rejects.toThrow('a defect')
  await done
  await seals.finish()
  expect(seals.has('defect')).toBe(false)
})
