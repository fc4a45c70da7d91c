import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
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

describe('an S3 that deletes several at once in its own way', () => {
  const keys = ['a', 'b', 'c'].map((name) => `w/20260114-120000-${name}`)
  type Answer = (keys: readonly string[]) => string | number

  /** A location that answers a bulk deletion so, and takes each by itself; tells what was asked of it. */
  async function deleting(answer: Answer): Promise<string[]> {
    const asked: string[] = []
    server = createServer(async (request, response) => {
      const body = await text(request)
      const path = decodeURIComponent(request.url ?? '')
        .replace(/\?.*$/, '')
        .replace('/bucket/results/w/', '')
      if (request.method !== 'POST') {
        asked.push(`${request.method} ${path}`)
        response.writeHead(204).end()
        return
      }
      expect(request.headers['content-md5']).toBe(createHash('md5').update(body).digest('base64'))
      expect(Object.keys(request.headers).filter((name) => name.includes('checksum'))).toEqual([])
      const wanted = [...body.matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, key = '']) => key)
      asked.push(`POST ${wanted.map((key) => key.replace('results/w/', '')).join(' ')}`)
      const said = answer(wanted)
      if (typeof said === 'number') response.writeHead(said).end('<Error><Code>NotImplemented</Code></Error>')
      else response.end(`<?xml version="1.0"?><DeleteResult>${said}</DeleteResult>`)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    at = openS3Location({
      bucket: 'bucket',
      endpoint,
      credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
    })
    return asked
  }
  const gone = (key: string): string => `<Deleted><Key>${key}</Key></Deleted>`
  const stays = (key: string, code: string): string => `<Error><Key>${key}</Key><Code>${code}</Code></Error>`
  const stamped = (...names: string[]): string => names.map((name) => `20260114-120000-${name}`).join(' ')
  const listed = keys.map((key) => ({ key, listed: true }))

  it('is believed key by key, and keeps the record of what stays', async () => {
    const asked = await deleting((wanted) =>
      wanted.map((key) => (key.endsWith('-b') ? stays(key, 'AccessDenied') : gone(key))).join(''),
    )
    const ends = await new S3Store(at).deleteMany(listed)
    expect([...ends]).toMatchObject([
      [keys[0], true],
      [keys[1], { code: 'ACCESS_DENIED' }],
      [keys[2], true],
    ])
    expect(asked).toEqual([`POST ${stamped('a', 'b', 'c')}`, `POST ${stamped('a.meta.json', 'c.meta.json')}`])
  })

  it('is asked again for each of which it says that it is busy, or nothing', async () => {
    const asked = await deleting((wanted) =>
      wanted
        .map((key) => (key.endsWith('-b') ? stays(key, 'SlowDown') : key.endsWith('-c') ? '' : gone(key)))
        .join(''),
    )
    expect([...(await new S3Store(at).deleteMany(listed)).values()]).toEqual([true, true, true])
    expect(asked.slice(1, 3).sort()).toEqual([`DELETE ${stamped('b')}`, `DELETE ${stamped('c')}`])
    expect(asked[3]).toBe(`POST ${stamped('a.meta.json', 'b.meta.json', 'c.meta.json')}`)
  })

  it('is asked for each from then on where it knows nothing of it', async () => {
    const asked = await deleting(() => 501)
    const store = new S3Store(at)
    expect([...(await store.deleteMany(listed)).values()]).toEqual([true, true, true])
    expect(asked.filter((line) => line.startsWith('POST'))).toHaveLength(1)
    expect(asked.filter((line) => line.startsWith('DELETE'))).toHaveLength(6)
    await store.deleteMany(listed)
    expect(asked.filter((line) => line.startsWith('POST'))).toHaveLength(1)
  })
})
