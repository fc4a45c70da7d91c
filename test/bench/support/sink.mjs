import { fork } from 'node:child_process'
import { once } from 'node:events'

/**
 * An HTTP server that takes every body, also one whose length nobody knows beforehand, which S3 does not.
 *
 * @returns {Promise<{ url: string, close: () => Promise<void> }>}
 */
export async function startSink() {
  const child = fork(new URL('sink-process.mjs', import.meta.url))
  const exited = once(child, 'exit')
  const [{ url }] = await Promise.race([
    once(child, 'message'),
    exited.then(([code]) => Promise.reject(new Error(`the sink ended with ${code}`))),
  ])
  const close = async () => {
    child.disconnect()
    await exited
  }
  return { url, close }
}
