import { expect, it } from 'vitest'
import { mintToken, type ResultsServer, serveResults } from '../../../src/endpoint/index.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { HttpStore } from '../../../src/stores/http/http-store.js'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'
import { postRecord } from '../../integration/endpoint/post.js'
import { inflateInS3, plantInS3, plantJunkInS3 } from '../../support/plant-s3.js'
import { inflateInFolder, plantInFolder, plantJunkInFolder } from '../../support/plant-spool.js'
import { s3Servers } from '../../support/s3/servers.js'
import { makeTempDir } from '../../support/temp-dir.js'
import { last, thorough } from '../../support/thorough.js'
import { describeResultStore } from './result-store.js'

const secret = 'a secret that is long enough to sign tokens'
const tokenFor = (taskId: string): string =>
  mintToken({ secret, taskId, scope: ['read', 'write', 'delete'], expiresAt: new Date(Date.now() + 600_000) })

/** More than this is laid out behind the endpoint, where it would have put it: syncing each would take most of the time. */
const MAX_POSTED = 100

async function seedOver(
  server: ResultsServer,
  results: readonly { readonly record: ResultRecord; readonly body: Uint8Array }[],
): Promise<void> {
  const queue = [...results]
  const workers = Array.from({ length: 8 }, async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const response = await postRecord(server.url, next.record, next.body, tokenFor(next.record.task_id))
      expect(response.status, await response.text()).toBe(201)
    }
  })
  await Promise.all(workers)
}

describeResultStore('http, kept in a directory', async () => {
  const dir = await makeTempDir()
  const server = await serveResults({
    directory: dir.path,
    tokenSecrets: [secret],
    basePath: '/some/results',
  })
  return {
    store: new HttpStore({ endpoint: server.url, token: tokenFor }),
    seed: async (results) => {
      if (results.length <= MAX_POSTED) return seedOver(server, results)
      for (const { record, body } of results) await plantInFolder(dir.path, record, body)
    },
    forge: async (results) => {
      for (const { record, body } of results) await plantInFolder(dir.path, record, body)
    },
    inflateRecord: (record, sizeBytes) => inflateInFolder(dir.path, record, sizeBytes),
    seedJunk: (taskId) => plantJunkInFolder(dir.path, taskId),
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await dir[Symbol.asyncDispose]()
    },
  }
})

// What the endpoint does with S3 is the same for both; the stricter one is the more telling.
for (const kind of thorough ? s3Servers().filter(last) : []) {
  describeResultStore(`http, kept in S3 [${kind.name}]`, async () => {
    const s3 = await kind.start()
    const options = {
      bucket: await s3.createBucket(),
      endpoint: s3.url,
      region: s3.region,
      credentials: s3.credentials,
    }
    const at = openS3Location(options)
    const server = await serveResults({ s3: options, tokenSecrets: [secret] })
    return {
      store: new HttpStore({ endpoint: server.url, token: tokenFor }),
      seed: (results) => (results.length <= MAX_POSTED ? seedOver(server, results) : plantInS3(at, results)),
      forge: (results) => plantInS3(at, results),
      inflateRecord: (record, sizeBytes) => inflateInS3(at, record, sizeBytes),
      seedJunk: (taskId) => plantJunkInS3(at, taskId),
      [Symbol.asyncDispose]: async () => {
        await server.close()
        at.close()
        await s3[Symbol.asyncDispose]()
      },
    }
  })
}

it('shows no secret in its name and takes no user in its address', () => {
  const store = new HttpStore({ endpoint: 'https://example.com/results/?tenant=secret#x' })
  expect(store.name).toBe('https://example.com/results')
  expect(() => new HttpStore({ endpoint: 'https://u:p@example.com/' })).toThrow(/must not name a user/)
  expect(() => new HttpStore({ endpoint: 'file:///etc/passwd' })).toThrow(/http or https/)
})
