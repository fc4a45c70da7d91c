import { startCountingProxy } from '../support/counting-proxy.mjs'
import { compiled } from '../support/dist.mjs'
import { plantTask, sealTask } from '../support/plant.mjs'
import { startS3 } from '../support/s3.mjs'

const { Conductor } = await import(compiled('index.js'))

const COUNT = 10_000

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'requests that results.list() of 10,000 results takes',
  run: async () => {
    const s3 = await startS3()
    const proxy = await startCountingProxy(s3.url)
    try {
      await sealTask(s3, await plantTask(s3, 'sealed', COUNT))
      await plantTask(s3, 'open', COUNT)
      const sealed = await count(s3, proxy, 'sealed', {})
      const open = await count(s3, proxy, 'open', { metadata: false })
      return [
        { name: ', sealed, with metadata', bound: 3, ...sealed },
        // A page has a thousand keys; the manifest is asked for, and then whether a worker runs.
        { name: ', unsealed, without metadata', bound: (COUNT / 1000) * 1.2, ...open },
      ]
    } finally {
      await proxy.close()
      await s3.close()
    }
  },
}

/**
 * @param {import('../support/s3.mjs').BenchS3} s3
 * @param {Awaited<ReturnType<typeof startCountingProxy>>} proxy
 * @param {string} taskId
 * @param {object} options
 */
async function count({ env }, proxy, taskId, options) {
  const { AWS_ENDPOINT_URL_S3: _, ...rest } = env
  const conductor = new Conductor({ env: { ...rest, AWS_ENDPOINT_URL_S3: proxy.url } })
  try {
    const found = await conductor.results(taskId).list({ strict: true, ...options })
    if (found.length !== COUNT) throw new Error(`${found.length} results were listed, not ${COUNT}`)
    const requests = proxy.take()
    return {
      value: requests.length,
      unit: /** @type {const} */ ('requests'),
      detail: [...new Set(requests)].join(', '),
    }
  } finally {
    await conductor.close()
  }
}
