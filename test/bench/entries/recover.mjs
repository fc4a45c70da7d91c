import { once } from 'node:events'
import { startCountingProxy } from '../support/counting-proxy.mjs'
import { compiled } from '../support/dist.mjs'
import { startStack } from '../support/stack.mjs'

const { Conductor } = await import(compiled('index.js'))

// Followed sandboxes share this machine; what each of them costs does not depend on their number.
const SANDBOXES = 40
const AT_ONCE = 8

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: `requests of recover() for each of ${SANDBOXES} sandboxes whose command runs, until all of them are followed`,
  run: async () => {
    const stack = await startStack()
    try {
      const e2b = await startCountingProxy(stack.e2bUrl)
      const s3 = await startCountingProxy(stack.s3Url)
      try {
        const left = new Conductor({ env: stack.env, maxWorkers: SANDBOXES })
        const names = Array.from({ length: SANDBOXES }, (_, i) => `left-${i}`)
        while (names.length > 0) {
          const some = names.splice(0, AT_ONCE)
          await Promise.all(
            some.map((taskId) => left.spawnWorker({ taskId, command: 'echo here; sleep 3600' })),
          )
        }
        // As a crash leaves them: nobody says anything more to the sandboxes.
        await Promise.all([...left.workers.values()].map((worker) => worker.detach()))
        const env = {
          ...stack.env,
          E2B_API_URL: e2b.url,
          E2B_SANDBOX_URL: e2b.url,
          E2B_VOLUME_API_URL: e2b.url,
          AWS_ENDPOINT_URL_S3: s3.url,
        }
        const next = new Conductor({ env, maxWorkers: SANDBOXES })
        const { workers } = await next.recover()
        await Promise.all(workers.map((worker) => once(worker, 'stdout')))
        const requests = [...e2b.take(), ...s3.take()]
        await Promise.all(workers.map((worker) => worker.detach()))
        return [
          {
            name: '',
            value: requests.length / SANDBOXES,
            bound: 3,
            unit: 'requests',
            detail: `${workers.length} workers, ${summarise(requests)}`,
          },
        ]
      } finally {
        await e2b.close()
        await s3.close()
      }
    } finally {
      await stack.close()
    }
  },
}

/**
 * How often each kind of request was made.
 *
 * @param {readonly string[]} requests
 */
function summarise(requests) {
  /** @type {Record<string, number>} */
  const counts = {}
  for (const line of requests) {
    const kind = line.replace(/\/sandboxes\/[^/]+/, '/sandboxes/…')
    counts[kind] = (counts[kind] ?? 0) + 1
  }
  return Object.entries(counts)
    .map(([kind, count]) => `${count} ${kind}`)
    .join(', ')
}
