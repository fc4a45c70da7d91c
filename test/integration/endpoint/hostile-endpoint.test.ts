import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { HttpStore } from '../../../src/stores/http/http-store.js'
import { collect, readAll, recordFor } from '../../support/records.js'

const servers: Server[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
})

/** A store that reads a server which answers as told. */
async function storeOver(listener: RequestListener, stallTimeoutMs = 5000): Promise<HttpStore> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return new HttpStore({ endpoint: `http://127.0.0.1:${port}/results`, token: 'very-secret', stallTimeoutMs })
}
const json = (value: unknown, status = 200): RequestListener => {
  return (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  }
}
const record = (name: string, taskId = 't') => recordFor({ taskId, name }, Buffer.from(name))
const { key } = record('a')

describe('a server that only takes results', () => {
  it.each([
    ['404', 404, 'text/html', '<h1>Not Found</h1>'],
    ['405', 405, 'text/plain', 'POST only'],
    ['501', 501, 'text/plain', ''],
    ['a page', 200, 'text/html', '<h1>Welcome</h1>'],
    ['nothing', 204, 'text/plain', ''],
  ])('is said to be unable to list when it answers with %s', async (_what, status, type, body) => {
    const store = await storeOver((_, response) => {
      response.writeHead(status, { 'content-type': type }).end(body)
    })
    const listing = collect(store.list('t'))
    await expect(listing).rejects.toMatchObject({ code: 'UNSUPPORTED', retryable: false })
    await expect(listing).rejects.toThrow(/^http:\/\/127\.0\.0\.1:\d+\/results cannot list results/)
  })
})

describe('a hostile listing', () => {
  const pages = (...all: unknown[]): RequestListener => {
    let asked = 0
    return (request, response) => json(all[Math.min(asked++, all.length - 1)])(request, response)
  }
  it.each([
    ['repeats its cursor', pages({ results: [], next: 'a' })],
    [
      'goes round in circles',
      pages({ results: [], next: 'a' }, { results: [], next: 'b' }, { results: [], next: 'a' }),
    ],
    [
      'never comes to an end',
      (() => {
        let page = 0
        return (request, response) => json({ results: [], next: `c${page++}` })(request, response)
      })() as RequestListener,
    ],
    ['is out of order', pages({ results: [record('b'), record('a')] })],
    ['repeats a result', pages({ results: [record('a'), record('a')] })],
    ['is no page', pages({ items: [] })],
    [
      'breaks off after a page',
      (request, response) => {
        if (request.url?.includes('cursor')) response.writeHead(404).end()
        else json({ results: [record('a')], next: 'a' })(request, response)
      },
    ],
    ['is null', pages(null)],
    ['has a cursor of another kind', pages({ results: [], next: { a: 1 } })],
    [
      'is no JSON',
      (_, response) =>
        response.writeHead(200, { 'content-type': 'application/json' }).end('{"results":') as never,
    ],
    [
      'is endless',
      (_, response) => {
        response.writeHead(200, { 'content-type': 'application/json' })
        const more = (): void => {
          while (response.write(`{"results":["${'x'.repeat(1 << 20)}`));
        }
        response.on('drain', more)
        more()
      },
    ],
  ] satisfies [string, RequestListener][])('that %s is a PROTOCOL error', async (_what, listener) => {
    const store = await storeOver(listener)
    await expect(collect(store.list('t'))).rejects.toMatchObject({ code: 'PROTOCOL' })
  })

  it('gives only what makes sense of it', async () => {
    const deep = `${'['.repeat(50_000)}${']'.repeat(50_000)}`
    const odd = [
      1,
      null,
      'x',
      [],
      {},
      record('other', 'u'),
      { ...record('b'), size: -1 },
      { ...record('b'), sha256: 'x' },
      { ...record('b'), key: 't/../x' },
      { ...record('b'), task_id: 'u' },
      { ...record('b'), metadata: [] },
    ]
    const text = JSON.stringify({ results: [...odd, { ...record('b'), metadata: 'DEEP' }, record('c')] })
    const store = await storeOver((_, response) => {
      response
        .writeHead(200, { 'content-type': 'application/json' })
        .end(text.replace('"DEEP"', `{"a":${deep}}`))
    })
    expect((await collect(store.list('t'))).map(({ key }) => key)).toEqual(['t/20260114-120000-c'])
  })

  it('may begin at the front although a later start was asked for', async () => {
    const store = await storeOver(json({ results: [record('a'), record('b'), record('c')] }))
    const listed = await collect(store.list('t', { startAfter: record('b').key }))
    expect(listed.map(({ key }) => key)).toEqual([record('c').key])
  })
})

describe('a hostile answer', () => {
  it.each([
    [401, { error: { code: 'unauthenticated' } }, 'ACCESS_DENIED', false],
    [401, { error: { code: 'token_expired' } }, 'EXPIRED', false],
    [403, {}, 'ACCESS_DENIED', false],
    [404, {}, 'NOT_FOUND', false],
    [429, {}, 'UNAVAILABLE', true],
    [500, { error: 'very-secret' }, 'UNAVAILABLE', true],
    [503, { error: { code: 'x'.repeat(1000) } }, 'UNAVAILABLE', true],
    [418, {}, 'PROTOCOL', false],
    [204, {}, 'PROTOCOL', false],
  ])('of status %i is told by its code', async (status, body, code, retryable) => {
    const store = await storeOver(json(body, status))
    const opened = store.open(key)
    await expect(opened).rejects.toMatchObject({ code, retryable })
    const { message } = await opened.then(
      () => ({ message: '' }),
      (error: Error) => error,
    )
    expect(message).not.toContain('very-secret')
    expect(message.length).toBeLessThan(200)
  })

  it('that leads elsewhere is not followed, and the token not sent there', async () => {
    let followed = false
    const store = await storeOver((request, response) => {
      if (request.url?.startsWith('/elsewhere')) followed = true
      response.writeHead(302, { location: '/elsewhere' }).end()
    })
    const refused = { code: 'PROTOCOL', retryable: false }
    await expect(store.open(key)).rejects.toMatchObject(refused)
    await expect(store.describe(key)).rejects.toMatchObject(refused)
    await expect(collect(store.list('t'))).rejects.toMatchObject(refused)
    expect(followed).toBe(false)
  })

  it('that never comes, or stops coming, is a TIMEOUT', async () => {
    const silent = await storeOver(() => undefined, 100)
    await expect(silent.open(key)).rejects.toMatchObject({ code: 'TIMEOUT', retryable: true })
    await expect(collect(silent.list('t'))).rejects.toMatchObject({ code: 'TIMEOUT' })
    const stopping = await storeOver((_, response) => {
      response.writeHead(200, { 'content-length': '100' }).write('half')
    }, 2_000)
    await expect(readAll(await stopping.open(key))).rejects.toMatchObject({
      code: 'TIMEOUT',
      retryable: true,
    })
  })

  it('does not time out because its reader takes its time', async () => {
    const store = await storeOver((_, response) => {
      response.writeHead(200).end(Buffer.alloc(5_000_000))
    }, 2_000)
    const reader = (await store.open(key)).getReader()
    const { value } = await reader.read()
    await new Promise((done) => setTimeout(done, 3_000))
    let size = value?.length ?? 0
    for (let next = await reader.read(); !next.done; next = await reader.read()) size += next.value.length
    expect(size).toBe(5_000_000)
  })

  it('that breaks off is no whole body', async () => {
    const store = await storeOver((_, response) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('half', () => response.destroy())
    })
    await expect(readAll(await store.open(key))).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      retryable: true,
    })
  })

  it('to a range is checked', async () => {
    const answers = (status: number, contentRange?: string): Promise<HttpStore> =>
      storeOver((_, response) => {
        response
          .writeHead(status, contentRange === undefined ? {} : { 'content-range': contentRange })
          .end('0123456789')
      })
    const read = async (store: HttpStore, offset: number): Promise<string> =>
      (await readAll(await store.open(key, { offset }))).toString()
    expect(await read(await answers(200), 3)).toBe('3456789')
    expect(await read(await answers(206, 'bytes 3-12/13'), 3)).toBe('0123456789')
    expect(await read(await answers(416, 'bytes */3'), 3)).toBe('')
    await expect(read(await answers(206, 'bytes 4-13/14'), 3)).rejects.toMatchObject({ code: 'PROTOCOL' })
    await expect(read(await answers(206), 3)).rejects.toMatchObject({ code: 'PROTOCOL' })
    await expect(read(await answers(206, 'bytes 0-9/10'), 0)).rejects.toMatchObject({ code: 'PROTOCOL' })
    await expect(read(await answers(416, 'bytes */9'), 3)).rejects.toMatchObject({ code: 'PROTOCOL' })
  })

  it('with the record of another result is refused', async () => {
    const store = await storeOver(json(record('b')))
    await expect(store.describe(key)).rejects.toMatchObject({ code: 'PROTOCOL' })
  })

  it('without records still describes a result by its headers', async () => {
    const { sha256 } = record('a')
    const store = await storeOver((request, response) => {
      if (request.method === 'HEAD')
        response.writeHead(200, { 'content-length': '1', etag: `"${sha256}"` }).end()
      else response.writeHead(404).end()
    })
    expect(await store.describe(key)).toMatchObject({
      size: 1,
      sha256,
      problem: expect.stringContaining('no record'),
    })
  })

  it('of nobody at all is UNAVAILABLE, not absent', async () => {
    const store = await storeOver(() => undefined)
    const [server] = servers.splice(0)
    server?.close()
    await expect(store.describe(key)).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true })
  })
})
