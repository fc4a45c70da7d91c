import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'

/**
 * Runs a module that sends one message once it is ready, and ends when it is left.
 *
 * @param {URL} module
 * @param {readonly string[]} [args]
 * @returns {Promise<{ ready: any, peakMegabytes: () => Promise<number>, close: () => Promise<void> }>}
 */
export async function startChild(module, args = []) {
  const child = fork(module, args)
  const exited = once(child, 'exit')
  const [ready] = await Promise.race([
    once(child, 'message'),
    exited.then(([code]) => Promise.reject(new Error(`${module.pathname} ended with ${code}`))),
  ])
  return {
    ready,
    peakMegabytes: async () => {
      const status = await readFile(`/proc/${child.pid}/status`, 'utf8')
      return (Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) * 1024) / 1e6
    },
    close: async () => {
      if (child.connected) child.disconnect()
      await exited
    },
  }
}
