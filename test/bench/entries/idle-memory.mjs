import { fork } from 'node:child_process'
import { once } from 'node:events'
import { startStack } from '../support/stack.mjs'

const WORKERS = 100
const FIRST = 10

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'memory of a conductor for each worker whose command runs and says nothing',
  run: async () => {
    const stack = await startStack()
    try {
      const child = fork(
        new URL('../support/idle-conductor.mjs', import.meta.url),
        [String(FIRST), String(WORKERS)],
        {
          env: { ...process.env, ...stack.env },
          execArgv: ['--expose-gc'],
        },
      )
      const exited = once(child, 'exit')
      try {
        const [{ beforeBytes, afterBytes }] = await Promise.race([
          once(child, 'message'),
          exited.then(([code]) => {
            throw new Error(`the conductor ended with ${code}`)
          }),
        ])
        return [
          {
            name: '',
            value: (afterBytes - beforeBytes) / WORKERS / 1e6,
            bound: 1,
            unit: 'MB',
            detail: `${(beforeBytes / 1e6).toFixed(0)} MB with ${FIRST} workers, ${(afterBytes / 1e6).toFixed(0)} MB with ${WORKERS} more`,
          },
        ]
      } finally {
        child.kill('SIGKILL')
        await exited
      }
    } finally {
      await stack.close()
    }
  },
}
