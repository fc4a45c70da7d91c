import { fork } from 'node:child_process'
import { once } from 'node:events'

/**
 * @typedef {object} BenchStack
 * @property {Readonly<Record<string, string>>} env All that a conductor reads from its environment.
 * @property {string} e2bUrl
 * @property {string} s3Url
 * @property {string} bucket
 * @property {() => Promise<void>} close
 */

/**
 * Starts a local E2B and S3 in another process.
 *
 * @returns {Promise<BenchStack>}
 */
export async function startStack() {
  const child = fork(new URL('running-stack.mjs', import.meta.url))
  const exited = once(child, 'exit')
  const [said] = await Promise.race([
    once(child, 'message'),
    exited.then(([code]) => {
      throw new Error(`the stack ended with ${code}`)
    }),
  ])
  return {
    ...said,
    close: async () => {
      child.disconnect()
      await exited
    },
  }
}
