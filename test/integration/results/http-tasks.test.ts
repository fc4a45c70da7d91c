import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { Conductor } from '../../../src/conductor/conductor.js'
import { mintToken, serveResults } from '../../../src/endpoint/index.js'
import { recordFor } from '../../support/records.js'
import { makeTempDir } from '../../support/temp-dir.js'

const servers: Server[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
})

/** An endpoint that answers the question for its tasks as told. */
async function endpoint(
  answer: (url: URL, request: IncomingMessage) => { readonly status?: number; readonly body: unknown },
): Promise<string> {
  const server = createServer((request, response) => {
    const { status = 200, body } = answer(new URL(request.url ?? '', 'http://x'), request)
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  }).listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/results`
}
const conductorOf = (url: string): Conductor =>
  new Conductor({ env: {}, s3: null, http: { endpoint: url, token: 'token' } })
const task = (task_id: string, day: number) => ({
  task_id,
  updated_at: `2026-01-0${day}T00:00:00.000Z`,
  results: day,
  size: 10,
})

describe('tasks over HTTP alone', () => {
  it('are listed where the endpoint can, whatever the order of its pages', async () => {
    const seen: (string | undefined)[] = []
    const url = await endpoint((asked, { headers }) => {
      seen.push(headers.authorization)
      expect(asked.searchParams.has('tasks')).toBe(true)
      return asked.searchParams.has('cursor')
        ? { body: { tasks: [task('new', 3), task('../evil', 4)] } }
        : { body: { tasks: [task('old', 1), task('middle', 2)], next: 'more' } }
    })
    await using conductor = conductorOf(url)
    const list = await conductor.tasks({ limit: 2 }).list()
    expect([...list]).toEqual([
      expect.objectContaining({
        taskId: 'new',
        state: 'unsealed',
        resultCount: 3,
        sizeBytes: 10,
        tiers: ['http'],
      }),
      expect.objectContaining({ taskId: 'middle', updatedAt: new Date('2026-01-02') }),
    ])
    expect(seen).toEqual(['Bearer token', 'Bearer token'])
  })

  it.each([
    ['says that a task is missing', { status: 400, body: { error: { code: 'invalid_query' } } }],
    ['knows only the POST', { status: 405, body: '' }],
    ['answers with something else', { body: { results: [] } }],
    ['answers with no JSON', { body: '<h1>Welcome</h1>' }],
  ])('are UNSUPPORTED where it %s', async (_what, answer) => {
    await using conductor = conductorOf(await endpoint(() => answer))
    await expect(conductor.tasks().list()).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringMatching(/cannot list tasks/),
    })
  })

  it('are those of this project’s own endpoint, which tells them to no worker', async () => {
    await using folder = await makeTempDir()
    const tokenSecret = 'a secret that is long enough to sign tokens'
    await using served = await serveResults({ directory: folder.path, tokenSecrets: [tokenSecret] })
    const of = (taskId: string): string =>
      mintToken({
        secret: tokenSecret,
        taskId,
        scope: ['read', 'write'],
        expiresAt: new Date(Date.now() + 60_000),
      })
    for (const taskId of ['one', 'two']) {
      const body = new FormData()
      for (const [name, value] of Object.entries({ task_id: taskId, key: 'report' })) body.append(name, value)
      body.append('file', new Blob(['hello']))
      const headers = { authorization: `Bearer ${of(taskId)}` }
      expect((await fetch(served.url, { method: 'POST', headers, body })).status).toBe(201)
    }
    await using conductor = new Conductor({ env: {}, s3: null, http: { endpoint: served.url, tokenSecret } })
    const list = await conductor.tasks().list()
    expect(list.map(({ taskId, resultCount, sizeBytes }) => [taskId, resultCount, sizeBytes]).sort()).toEqual(
      [
        ['one', 1, 5],
        ['two', 1, 5],
      ],
    )
    expect((await conductor.results({ tasks: '*' }).list()).map(({ taskId }) => taskId).sort()).toEqual([
      'one',
      'two',
    ])
    const asWorker = { headers: { authorization: `Bearer ${of('one')}` } }
    expect((await fetch(`${served.url}?tasks`, asWorker)).status).toBe(403)
  })

  it('are found by the beginning of their names, however many others come first', async () => {
    const url = await endpoint(({ searchParams }) => {
      if (!searchParams.has('tasks'))
        return { body: { results: [recordFor({ taskId: 'w', name: 'r' }, Buffer.from('x'))] } }
      const page = Number(searchParams.get('cursor') ?? 0)
      if (page === 120) return { body: { tasks: [task('w', 1)] } }
      return { body: { tasks: [task(`a-${page}`, 1)], next: `${page + 1}` } }
    })
    await using conductor = conductorOf(url)
    expect((await conductor.results({ tasks: 'w*' }).list()).map(({ name }) => name)).toEqual(['r'])
  })

  it.each([
    ['with a refusal', { status: 404, body: '' }],
    ['with something else', { body: '<h1>Welcome</h1>' }],
  ])('that break off after a page %s are not taken for all', async (_what, answer) => {
    const url = await endpoint(({ searchParams }) =>
      searchParams.has('cursor') ? answer : { body: { tasks: [task('w', 1)], next: 'more' } },
    )
    await using conductor = conductorOf(url)
    await expect(conductor.tasks().list()).rejects.toMatchObject({ code: 'PROTOCOL' })
  })

  it.each([
    ['repeats its cursor', () => ({ body: { tasks: [task('w', 1)], next: 'same' } })],
    ['never comes to a task', (n: number) => ({ body: { tasks: [], next: `t${n}` } })],
  ])('are given up where it %s', async (_what, answer) => {
    let asked = 0
    const url = await endpoint(() => answer(asked++))
    await using conductor = conductorOf(url)
    await expect(conductor.tasks().list()).rejects.toMatchObject({ code: 'PROTOCOL' })
    expect(asked).toBeLessThan(110)
  })
})
