import { describe, expect, it } from 'vitest'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Store } from '../../../src/stores/s3/s3-store.js'
import { inflateInS3, plantInS3, plantJunkInS3 } from '../../support/plant-s3.js'
import { s3Servers } from '../../support/s3/servers.js'
import { choose, last } from '../../support/thorough.js'
import { describeResultStore } from './result-store.js'

describe('S3', () => {
  const servers = s3Servers()
  // More than a page takes seconds to plant; test/integration/s3/listing.test.ts says how the local one counts.
  const paged = choose(servers, last)
  for (const kind of servers) {
    describeResultStore(`S3 [${kind.name}]`, async () => {
      const server = await kind.start()
      const at = openS3Location({
        bucket: await server.createBucket(),
        endpoint: server.url,
        region: server.region,
        credentials: server.credentials,
      })
      return {
        store: new S3Store(at),
        seed: (results) => plantInS3(at, results),
        forge: (results) => plantInS3(at, results),
        inflateRecord: (record, sizeBytes) => inflateInS3(at, record, sizeBytes),
        seedJunk: (taskId) => plantJunkInS3(at, taskId),
        listsInPages: paged.includes(kind),
        [Symbol.asyncDispose]: async () => {
          at.close()
          await server[Symbol.asyncDispose]()
        },
      }
    })
  }

  it('makes a link that saves under any file name, whatever is in it', async () => {
    const credentials = { accessKeyId: 'id', secretAccessKey: 'secret' }
    const at = openS3Location({ bucket: 'bucket', region: 'us-east-1', credentials })
    const url = await new S3Store(at).url('w/20260114-120000-r', { filename: 'a"\r\n\ud800ü%.txt' })
    expect(new URL(url).searchParams.get('response-content-disposition')).toBe(
      `attachment; filename="a_____%.txt"; filename*=UTF-8''a%22%0D%0A%EF%BF%BD%C3%BC%25.txt`,
    )
    at.close()
  })
})
