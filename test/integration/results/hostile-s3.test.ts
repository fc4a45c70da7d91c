import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { taskSource } from '../../../src/results/result-source.js'
import { createResults } from '../../../src/results/results.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Store } from '../../../src/stores/s3/s3-store.js'
import { S3Tasks } from '../../../src/stores/s3/s3-tasks.js'
import { collect } from '../../support/records.js'

let server: Server
let at: S3Location
afterEach(async () => {
  at.close()
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
})

/** A location whose every listing has these keys, and names the n-th token as the next. */
async function listing(keys: readonly string[], token: (n: number) => string): Promise<{ count: number }> {
  const asked = { count: 0 }
  server = createServer((_, response) => {
    const contents = keys.map((key) => `<Contents><Key>${key}</Key><Size>1</Size></Contents>`).join('')
    const next = `<NextContinuationToken>${token(asked.count)}</NextContinuationToken>`
    asked.count += 1
    response.setHeader('content-type', 'application/xml')
    response.end(
      `<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated>${next}${contents}</ListBucketResult>`,
    )
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const credentials = { accessKeyId: 'a', secretAccessKey: 'b' }
  at = openS3Location({ bucket: 'bucket', endpoint, credentials })
  return asked
}

describe('an S3 whose listing never ends', () => {
  it.each([
    ['repeats its cursor', ['results/w/20260114-120000-a'], () => 'same', 2],
    ['repeats an earlier cursor', [], (n: number) => `t${n % 3}`, 4],
    ['repeats its keys under new cursors', ['results/w/20260114-120000-a'], (n: number) => `t${n}`, 2],
    ['has always another page without anything', [], (n: number) => `t${n}`, 202],
  ])('because it %s is given up', async (_what, keys, token, requests) => {
    const asked = await listing(keys, token)
    const store = new S3Store(at)
    await expect(collect(store.list('w'))).rejects.toMatchObject({ code: 'PROTOCOL', retryable: false })
    expect(asked.count).toBeLessThanOrEqual(requests)
    const results = createResults(
      taskSource({ taskId: 'w', manifests: undefined, stores: async () => [store] }),
    )
    await expect(results.list()).rejects.toMatchObject({ code: 'PROTOCOL' })
  })

  it('does not hold up the list of tasks either', async () => {
    await listing([], (n) => `t${n % 2}`)
    await expect(collect(new S3Tasks(at).listTasks())).rejects.toMatchObject({ code: 'PROTOCOL' })
  })
})
