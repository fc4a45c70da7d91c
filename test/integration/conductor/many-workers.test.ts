import { expect, it } from 'vitest'
import { startTestStack } from '../../support/stack.js'

it('starts many workers at once without a warning of leaking listeners', async (test) => {
  const warnings: string[] = []
  const listen = ({ name }: Error): void => void warnings.push(name)
  process.on('warning', listen)
  test.onTestFinished(() => void process.off('warning', listen))
  const stack = await startTestStack()
  test.onTestFinished(() => stack[Symbol.asyncDispose]())
  const conductor = stack.conductor()
  await Promise.all(Array.from({ length: 14 }, (_, i) => conductor.spawnWorker({ taskId: `many-${i}` })))
  expect(conductor.workers.size).toBe(14)
  await conductor.close()
  expect(warnings).not.toContain('MaxListenersExceededWarning')
})
