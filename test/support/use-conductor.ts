import { afterAll, beforeAll } from 'vitest'
import type { Conductor } from '../../src/conductor/conductor.js'
import { startTestStack, type TestStack } from './stack.js'

/** One stack and one conductor for all tests of a block, which are told before the first of them. */
export function useConductor(started: (stack: TestStack, conductor: Conductor) => void): void {
  let stack: TestStack | undefined
  let conductor: Conductor | undefined
  beforeAll(async () => {
    stack = await startTestStack()
    conductor = stack.conductor()
    started(stack, conductor)
  })
  afterAll(async () => {
    await conductor?.close()
    await stack?.[Symbol.asyncDispose]()
  })
}
