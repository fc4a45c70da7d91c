import { startCountingProxy } from '../support/counting-proxy.mjs'
import { compiled } from '../support/dist.mjs'
import { plantTask, sealTask } from '../support/plant.mjs'
import { startS3 } from '../support/s3.mjs'

const { Conductor } = await import(compiled('index.js'))

const COUNT = 1000

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'requests that results.delete() of 1,000 results of a sealed task takes',
  run: async () => {
    const s3 = await startS3()
    const proxy = await startCountingProxy(s3.url)
    try {
      await sealTask(s3, await plantTask(s3, 'doomed', COUNT))
      const { AWS_ENDPOINT_URL_S3: _, ...rest } = s3.env
      const conductor = new Conductor({ env: { ...rest, AWS_ENDPOINT_URL_S3: proxy.url } })
      try {
        const { deleted, failed } = await conductor.results('doomed').delete()
        if (deleted.length !== COUNT)
          throw new Error(`${deleted.length} were deleted, ${failed.length} failed`)
        const requests = proxy.take()
        const left = await conductor.results('doomed').list()
        if (left.length > 0) throw new Error(`${left.length} results are still listed`)
        // The list of them, the manifest read and written before and after, all objects, all sidecars.
        const detail = [...new Set(requests)].slice(0, 8).join(', ')
        return [
          { name: '', bound: 8, value: requests.length, unit: /** @type {const} */ ('requests'), detail },
        ]
      } finally {
        await conductor.close()
      }
    } finally {
      await proxy.close()
      await s3.close()
    }
  },
}
