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
  what: `requests of recover() for each further one of ${SANDBOXES} sandboxes whose command runs, until all are followed`,
  run: async () => {
    const stack = await startStack()
    try {
      const e2b = await startCountingProxy(stack.e2bUrl)
      const s3 = await startCountingProxy(stack.s3Url)
      try {
        const env = {
          ...stack.env,
          E2B_API_URL: e2b.url,
          E2B_SANDBOX_URL: e2b.url,
          E2B_VOLUME_API_URL: e2b.url,
          AWS_ENDPOINT_URL_S3: s3.url,
        }
        const requestsFor = async (/** @type {number} */ count) => {
          await leave(stack.env, `left-${count}`, count)
          const next = new Conductor({ env, id: `left-${count}`, maxWorkers: count })
          e2b.take()
          s3.take()
          const { workers, failures } = await next.recover()
          await Promise.all(workers.map((worker) => once(worker, 'stdout')))
          const requests = [...e2b.take(), ...s3.take()]
          if (workers.length !== count) {
            throw new Error(
              `followed ${workers.length} of ${count} workers: ${failures[0]?.error ?? 'no failure'}`,
            )
          }
          await Promise.all(workers.map((worker) => worker.kill()))
          return requests
        }
        // A few are for the whole recovery, however many sandboxes there are.
        const one = await requestsFor(1)
        const many = await requestsFor(SANDBOXES)
        return [
          {
            name: '',
            value: (many.length - one.length) / (SANDBOXES - 1),
            bound: 3,
            unit: 'requests',
            detail: `of one: ${summarise(one)}; of ${SANDBOXES}: ${summarise(many)}`,
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
 * Leaves running workers as a crash does: nobody says anything more to their sandboxes.
 *
 * @param {Readonly<Record<string, string>>} env
 * @param {string} id
 * @param {number} count
 */
async function leave(env, id, count) {
  const left = new Conductor({ env, id, maxWorkers: count })
  const names = Array.from({ length: count }, (_, i) => `${id}-${i}`)
  while (names.length > 0) {
    const some = names.splice(0, AT_ONCE)
    await Promise.all(some.map((taskId) => left.spawnWorker({ taskId, command: 'echo here; sleep 3600' })))
  }
  await Promise.all([...left.workers.values()].map((worker) => worker.detach()))
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
