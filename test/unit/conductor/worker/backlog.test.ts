import { expect, it } from 'vitest'
import { Backlog } from '../../../../src/conductor/worker/backlog.js'

it('has nothing wait any more once it was let go, whatever became of who was told', async () => {
  const backlog = new Backlog()
  await backlog.released
  backlog.hold()
  backlog.tell(() => {
    throw new TypeError('a listener')
  })
  expect(() => backlog.release()).toThrow('a listener')
  await backlog.released
})
