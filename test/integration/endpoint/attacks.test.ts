import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createResultsHandler, mintToken, verifyToken } from '../../../src/endpoint/index.js'
import { curl } from './curl.js'
import { bearer, formOf, post } from './post.js'
import { rawRequest } from './raw-request.js'
import { inDirectory, SECRET, serveFolder, type TestServer, tokenFor } from './servers.js'

const OTHER_SECRET = 'another secret, also longer than 32 bytes'
const key = 'mine/20260114-120000-r'
const fields = { key, task_id: 'mine' }

/** Everything that lies in the server's folder, besides what is its own. */
async function stored(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true })
  return names
    .filter((name) => /\d{8}-\d{6}/.test(name) || name.split('/').length === 3)
    .filter((name) => !name.endsWith('owner.json'))
    .sort()
}

describe('who holds a token', () => {
  let served: TestServer
  let url: string
  beforeAll(async () => {
    served = await serveFolder({ tokenSecrets: [OTHER_SECRET, SECRET] })
    url = served.url
    expect((await post(url, formOf(fields, 'mine'), tokenFor('mine'))).status).toBe(201)
  })
  afterAll(() => served?.[Symbol.asyncDispose]())

  const attempts = (token: string | undefined): readonly [string, () => Promise<Response>][] => {
    const headers = bearer(token)
    return [
      ['POST', () => post(url, formOf({ key: 'mine/20260114-120000-new', task_id: 'mine' }, 'x'), token)],
      ['list', () => fetch(`${url}?task_id=mine`, { headers })],
      ['list of tasks', () => fetch(`${url}?tasks`, { headers })],
      ['GET', () => fetch(`${url}/${key}`, { headers })],
      ['HEAD', () => fetch(`${url}/${key}`, { method: 'HEAD', headers })],
      ['record', () => fetch(`${url}/${key}.meta.json`, { headers })],
      ['GET of nothing', () => fetch(`${url}/${key}-not-there`, { headers })],
      ['DELETE', () => fetch(`${url}/${key}`, { method: 'DELETE', headers })],
    ]
  }
  const [head = '', payload = '', signature = ''] = tokenFor('mine').split('.')
  const claims = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const otherPayload = tokenFor('other').split('.')[1]

  it.each([
    ['none', undefined],
    ['an expired one', tokenFor('mine', undefined, { expiresInMs: -1000 })],
    [
      'one of another secret',
      tokenFor('mine', undefined, { secret: 'yet another secret of more than 32 bytes' }),
    ],
    ['one with another task put in', `${head}.${otherPayload}.${signature}`],
    ['one with its signature cut', `${head}.${payload}.${signature.slice(0, -1)}`],
    [
      'one with one bit of its signature changed',
      `${head}.${payload}.${signature[0] === 'A' ? 'B' : 'A'}${signature.slice(1)}`,
    ],
    ['an unsigned one', `${head}.${claims({ t: 'mine', s: ['read', 'write', 'delete'], e: 9e9 })}.`],
    ['a JSON web token without a signature', `${claims({ alg: 'none' })}.${claims({ sub: 'mine' })}.`],
    ['a very long one', `stu1.${'A'.repeat(8000)}.${'A'.repeat(43)}`],
    ['the secret itself', SECRET.replaceAll(' ', '')],
  ])('gets 401 everywhere with %s', async (_what, token) => {
    for (const [what, attempt] of attempts(token)) {
      const response = await attempt()
      expect([what, response.status]).toEqual([what, 401])
      expect(response.headers.get('www-authenticate')).toMatch(/^Bearer/)
      expect(await response.text()).not.toContain('mine')
    }
  })

  it('gets 403 everywhere with a valid token of another task, whether the result is there or not', async () => {
    for (const [what, attempt] of attempts(tokenFor('other'))) {
      const response = await attempt()
      expect([what, response.status]).toEqual([what, 403])
    }
    // A form whose key and task say different things.
    for (const mixed of [
      { key, task_id: 'other' },
      { key: 'other/20260114-120000-r', task_id: 'mine' },
    ]) {
      const response = await post(url, formOf(mixed, 'x'), tokenFor('other'))
      expect([403, 422]).toContain(response.status)
    }
    expect(await stored(served.folder)).toEqual([key, `${key}.meta.json`])
  })

  it('gets no further than its scopes', async () => {
    const allowed = async (token: string): Promise<string[]> => {
      const names: string[] = []
      for (const [what, attempt] of attempts(token)) if ((await attempt()).status !== 403) names.push(what)
      return names
    }
    expect(await allowed(tokenFor('mine', ['read']))).toEqual([
      'list',
      'GET',
      'HEAD',
      'record',
      'GET of nothing',
    ])
    expect(await allowed(tokenFor('mine', ['write']))).toEqual(['POST'])
    expect(await allowed(tokenFor('mine', ['delete']))).toEqual(['DELETE'])
    expect((await post(url, formOf(fields, 'mine'), tokenFor('mine', ['write']))).status).toBe(201)
  })

  it('is let in under either of two secrets, so that they can be rotated', async () => {
    for (const secret of [SECRET, OTHER_SECRET]) {
      const response = await fetch(`${url}?task_id=mine`, {
        headers: bearer(tokenFor('mine', ['read'], { secret })),
      })
      expect(response.status).toBe(200)
    }
  })

  it('is refused before a body is sent', async () => {
    const { host } = new URL(url)
    const head = `POST / HTTP/1.1\r\nhost: ${host}\r\nauthorization: Bearer nope\r\nexpect: 100-continue\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 1000000000\r\n\r\n`
    const answer = await rawRequest(url, head)
    expect(answer).toMatch(/^HTTP\/1\.1 401 /)
    expect(answer).not.toContain('100 Continue')
  })
})

describe('tokens', () => {
  it('say what they were minted with', () => {
    const expiresAt = new Date(1_900_000_000_000)
    const token = mintToken({ secret: SECRET, taskId: 'a.b-c', scope: ['read', 'read'], expiresAt })
    const now = new Date()
    expect(verifyToken(token, [OTHER_SECRET, SECRET], now)).toEqual({
      taskId: 'a.b-c',
      scope: ['read'],
      expiresAt,
    })
    expect(verifyToken(token, [OTHER_SECRET], now)).toBe('invalid')
    expect(verifyToken(token, [SECRET], expiresAt)).toBe('expired')
  })

  it('are not minted with a short secret, for no task or for nothing', () => {
    const options = { secret: SECRET, taskId: 't', scope: ['read'], expiresAt: new Date() } as const
    expect(() => mintToken({ ...options, secret: 'short' })).toThrow(/at least 32 bytes/)
    expect(() => mintToken({ ...options, taskId: '../t' })).toThrow(/task id/)
    expect(() => mintToken({ ...options, scope: [] })).toThrow(/scope/)
    expect(() => mintToken({ ...options, expiresAt: new Date(Number.NaN) })).toThrow(/expiresAt/)
  })

  it('or a hook, or an explicit word, must say who is let in', async () => {
    await using kept = await inDirectory.open()
    const { backend } = kept
    expect(() => createResultsHandler({ backend })).toThrow(/tokenSecrets or authenticate/)
    expect(() => createResultsHandler({ backend, authenticate: 'none', tokenSecrets: [SECRET] })).toThrow(
      /either/,
    )
    expect(() => createResultsHandler({ backend, tokenSecrets: ['short'] })).toThrow(/at least 32 bytes/)
    expect(() => createResultsHandler({ backend, tokenSecrets: [] })).toThrow(/tokenSecrets/)
    const handler = createResultsHandler({
      backend,
      authenticate: async (request) => {
        expect(request.body).toBeNull()
        const user = request.headers.get('x-user')
        return user === null ? null : { taskId: user, scopes: ['read'] }
      },
    })
    const ask = async (user?: string): Promise<number> =>
      (
        await handler(
          new Request('http://x/?task_id=t', { headers: user === undefined ? {} : { 'x-user': user } }),
        )
      ).status
    expect([await ask(), await ask('u'), await ask('t')]).toEqual([401, 403, 200])
  })
})

describe('hostile paths', () => {
  let served: TestServer
  beforeAll(async () => {
    served = await serveFolder({ basePath: '/results' })
    await mkdir(join(served.folder, 'secret'))
    expect((await post(served.url, formOf(fields, 'mine'))).status).toBe(201)
  })
  afterAll(() => served?.[Symbol.asyncDispose]())

  it.each([
    '/results/../../../../etc/passwd',
    '/results/%2e%2e/%2e%2e/etc/passwd',
    '/results/mine/%2e%2e%2f%2e%2e%2fetc%2fpasswd',
    '/results/mine/..%2f..%2fetc%2fpasswd',
    '/results/mine%2f20260114-120000-r',
    '/results//mine/20260114-120000-r',
    '/results/mine//20260114-120000-r',
    '/results/mine/20260114-120000-r/',
    '/results/mine/20260114-120000-r%00',
    '/results/mine/20260114-120000-r%2f',
    '/results/mine/20260114-120000-%2e%2e',
    '/results/mine/20260114-120000-%ff',
    '/results/mine/20260114-120000-%',
    '/results/.incoming/x',
    '/results/mine/20260114-120000-r.meta.json.meta.json',
    '/resultsmine/20260114-120000-r',
    '//results/mine/20260114-120000-r',
    '//evil.example/results/mine/20260114-120000-r',
    '/',
    '/openapi.json',
  ])('finds nothing at %s', async (path) => {
    const origin = new URL(served.url).origin
    const { status, body } = await curl('--path-as-is', `${origin}${path}`)
    expect(status).toBe(404)
    expect(JSON.parse(body).error.code).toBe('not_found')
  })

  it('answers a request line that is no path, and a host that is none', async () => {
    for (const target of ['*', 'mine', 'http://evil.example/results?task_id=mine', '/results?task_id=mine']) {
      const answer = await rawRequest(
        served.url,
        `GET ${target} HTTP/1.1\r\nhost: a@b/c?\r\nconnection: close\r\n\r\n`,
      )
      expect(answer).toMatch(/^HTTP\/1\.1 (200|400|404) /)
      expect(answer).not.toContain('evil.example')
      expect(answer).not.toContain('a@b')
    }
    expect(served.faults).toEqual([])
  })

  it('takes hostile names and types, and gives them back defused', async () => {
    const name = 'a"b\\c;\u202egpj.exe<script>%41'
    const hostile = {
      key: `mine/20260114-120000-${name}`,
      task_id: 'mine',
      content_type: 'text/html\r\nx-evil: 1',
    }
    expect((await post(served.url, formOf(hostile, '<script>alert(1)</script>'))).status).toBe(201)
    const { status, headers } = await curl(
      `${served.url}/mine/${encodeURIComponent(`20260114-120000-${name}`)}`,
    )
    expect(status).toBe(200)
    expect(headers.has('x-evil')).toBe(false)
    expect(headers.get('content-type')).toBe('application/octet-stream')
    expect(headers.get('content-disposition')).toBe(
      `attachment; filename="a_b_c;_gpj.exe<script>_41"; filename*=UTF-8''a%22b%5Cc%3B_gpj.exe%3Cscript%3E%2541`,
    )
  })
})

describe('hostile forms', () => {
  let served: TestServer
  let url: string
  beforeAll(async () => {
    const limits = { maxFileBytes: 2_000_000, maxMetadataBytes: 100_000, stallTimeoutMs: 1000 }
    served = await serveFolder({ limits })
    url = served.url
  })
  afterAll(async () => {
    // Whatever was thrown at it: nothing was kept, nothing is left behind, nothing was its own fault.
    expect(await stored(served.folder)).toEqual([])
    expect(served.faults).toEqual([])
    await served[Symbol.asyncDispose]()
  })

  const head = (length: number | 'chunked', type = 'multipart/form-data; boundary=x'): string =>
    `POST / HTTP/1.1\r\nhost: ${new URL(url).host}\r\nconnection: close\r\ncontent-type: ${type}\r\n${
      length === 'chunked' ? 'transfer-encoding: chunked' : `content-length: ${length}`
    }\r\n\r\n`
  const part = (name: string, value: string, more = ''): string =>
    `--x\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n${value}\r\n`
  const proper = part('key', key) + part('task_id', 'mine')
  const file = part('file', 'hello', '; filename="f"')
  const send = (body: string, length = body.length): Promise<string> => rawRequest(url, head(length) + body)

  it.each([
    ['without a boundary', 'multipart/form-data', 400],
    ['with an empty boundary', 'multipart/form-data; boundary=', 400],
    ['of another multipart kind', 'multipart/mixed; boundary=x', 415],
    ['of a kind that only begins so', 'multipart/form-dataX; boundary=x', 415],
  ])('refuses a form %s', async (_what, type, status) => {
    const body = `${proper}${file}--x--\r\n`
    expect(await rawRequest(url, head(body.length, type) + body)).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
  })

  it('refuses a form that ends in the middle', async () => {
    for (const cut of [
      proper,
      proper + file.slice(0, -4),
      `${proper}${file}`,
      `${proper}--x\r\nContent-Dis`,
      '--x',
      'no form',
    ]) {
      expect(await send(cut)).toMatch(/^HTTP\/1\.1 (400|422) /)
    }
  })

  it('keeps nothing of a body that is shorter than announced, or longer', async () => {
    await rawRequest(url, head(1_000_000) + proper + file, { end: true })
    const body = `${part('key', 'r')}${part('task_id', '..')}${file}--x--\r\n`
    expect(await rawRequest(url, `${head(body.length)}${body}surplus`)).toMatch(/^HTTP\/1\.1 422 /)
  })

  it('refuses a length that is too large before it is sent', async () => {
    expect(await rawRequest(url, head(10_000_000_000))).toMatch(/^HTTP\/1\.1 413 /)
  })

  it('stops at the limit when no length was announced', async () => {
    const body = async function* (): AsyncGenerator<Buffer> {
      yield Buffer.from(head('chunked'))
      const chunk = (text: string): Buffer => Buffer.from(`${text.length.toString(16)}\r\n${text}\r\n`)
      yield chunk(`${proper}--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n`)
      for (let i = 0; i < 64; i++) yield chunk('x'.repeat(65_536))
      yield chunk('\r\n--x--\r\n')
      yield Buffer.from('0\r\n\r\n')
    }
    expect(await rawRequest(url, body())).toMatch(/^HTTP\/1\.1 413 /)
  })

  it('refuses 100 MB of metadata', async () => {
    const chunk = Buffer.alloc(1 << 20, 'x')
    const start = Buffer.from(`--x\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"a":"`)
    const body = async function* (): AsyncGenerator<Buffer> {
      // Announced as chunked, so that the length alone does not give it away.
      yield Buffer.from(`${head('chunked')}${start.length.toString(16)}\r\n${start}\r\n`)
      for (let i = 0; i < 100; i++)
        yield Buffer.concat([Buffer.from('100000\r\n'), chunk, Buffer.from('\r\n')])
    }
    expect(await rawRequest(url, body())).toMatch(/^HTTP\/1\.1 413 /)
  })

  it('refuses metadata just over the limit, and takes it just below', async () => {
    const metadata = (bytes: number): string => JSON.stringify({ a: 'x'.repeat(bytes - 8) })
    const over = await post(url, formOf({ ...fields, metadata: metadata(100_001) }, 'x'))
    expect([over.status, await over.json()]).toMatchObject([413, { error: { code: 'too_large' } }])
    const at = await post(url, formOf({ ...fields, task_id: 'other', metadata: metadata(100_000) }, 'x'))
    // Refused for its task, and not for its size.
    expect(at.status).toBe(422)
  })

  it.each([
    [
      'thousands of fields',
      () => Array.from({ length: 5000 }, (_, i) => part(`f${i}`, 'x')).join('') + proper + file,
    ],
    [
      'a name of a megabyte',
      () => part('n'.repeat(1 << 20), 'x') + proper + file.replace('f"', `${'f'.repeat(1 << 20)}"`),
    ],
    [
      'a megabyte of headers',
      () => `--x\r\n${'X-A: b\r\n'.repeat(130_000)}\r\n\r\nx\r\n${part('task_id', 'mine')}${file}`,
    ],
    [
      'metadata nested too deep',
      () => part('metadata', `{"a":${'['.repeat(40_000)}${']'.repeat(40_000)}}`) + proper + file,
    ],
    ['fields without names', () => `--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n${proper}${file}`],
    ['names of prototypes', () => part('__proto__', '{"task_id":"mine"}') + part('constructor', 'x') + file],
  ])('survives %s', async (_what, make) => {
    const answer = await send(`${make()}--x--\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 (400|413|422) /)
    const { error } = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')))
    expect(error).toEqual({ code: expect.stringMatching(/^[a-z_]+$/), message: expect.any(String) })
    expect(error.message.length).toBeLessThan(200)
  })

  it('gives up on a client that sends nothing more', async () => {
    const answer = await rawRequest(url, head(1_000_000) + proper)
    expect(answer).toMatch(/^HTTP\/1\.1 408 /)
  })

  it('forgets an upload whose client goes away', async () => {
    const gone = new AbortController()
    const body = new ReadableStream<Uint8Array>({
      start: (controller) =>
        controller.enqueue(
          Buffer.from(`${proper}--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nabc`),
        ),
    })
    const headers = { 'content-type': 'multipart/form-data; boundary=x' }
    const posted = fetch(url, { method: 'POST', body, headers, duplex: 'half', signal: gone.signal })
    const incoming = join(served.folder, '.incoming')
    const [own = ''] = await readdir(incoming)
    const staged = async (): Promise<number> => (await readdir(join(incoming, own))).length
    await expect.poll(staged, { interval: 10, timeout: 20_000 }).toBe(2)
    gone.abort()
    await expect(posted).rejects.toThrow(/abort/i)
    await expect.poll(staged, { interval: 10, timeout: 20_000 }).toBe(1)
  })
})

it('holds a task to its quota', async () => {
  await using served = await serveFolder({ limits: { maxTaskResults: 3, maxTaskBytes: 100 } })
  const put = (task: string, name: string, size: number): Promise<Response> =>
    post(served.url, formOf({ key: `${task}/20260114-120000-${name}`, task_id: task }, 'x'.repeat(size)))
  const racing = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((name) => put('t', name, 5)))
  expect(racing.map(({ status }) => status).sort()).toEqual([201, 201, 201, 507, 507])
  const { error } = (await (await put('t', 'f', 5)).json()) as { error: { code: string } }
  expect(error.code).toBe('task_quota_exceeded')
  // What is there already may be sent again, other tasks have their own, and what is deleted makes room.
  const { results } = (await (await fetch(`${served.url}?task_id=t`)).json()) as {
    results: { key: string; name: string }[]
  }
  expect((await put('t', results[0]?.name ?? '', 5)).status).toBe(200)
  expect((await put('u', 'large', 101)).status).toBe(507)
  expect((await put('u', 'small', 100)).status).toBe(201)
  expect((await fetch(`${served.url}/${results[0]?.key}`, { method: 'DELETE' })).status).toBe(204)
  expect((await put('t', 'f', 5)).status).toBe(201)
  expect(served.faults).toEqual([])
})
