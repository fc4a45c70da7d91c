import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'
import { bearer, formOf } from './post.js'
import { SECRET, tokenFor } from './servers.js'

const examples = join(import.meta.dirname, '../../../examples/endpoint')
const key = 'worker-123/20260114-120000-r'

let dir: TempDir
beforeAll(async () => {
  dir = await makeTempDir()
})
afterAll(() => dir?.[Symbol.asyncDispose]())

/** Anything that answers as `fetch` does. */
type Ask = (url: string, init?: RequestInit) => Promise<Response>

/** What a client does with an endpoint, one thing after the other. */
async function useEndpoint(ask: Ask, url: string, headers: Record<string, string>): Promise<void> {
  const form = formOf({ key, task_id: 'worker-123' }, 'hello', 'text/html')
  expect((await ask(url, { method: 'POST', body: form })).status).toBe(401)
  const posted = await ask(url, { method: 'POST', body: form, headers })
  expect(posted.status, await posted.text()).toBe(201)
  const listed = await ask(`${url}?task_id=worker-123`, { headers })
  expect(await listed.json()).toMatchObject({ results: [{ key, size: 5 }] })
  const part = await ask(`${url}/${key}`, { headers: { ...headers, range: 'bytes=1-2' } })
  expect([part.status, await part.text()]).toEqual([206, 'el'])
  expect(part.headers.get('content-disposition')).toMatch(/^attachment/)
  expect(part.headers.get('x-content-type-options')).toBe('nosniff')
  expect(part.headers.get('content-security-policy')).toMatch(/^sandbox/)
  const head = await ask(`${url}/${key}`, { method: 'HEAD', headers })
  expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '5', ''])
  const etag = head.headers.get('etag') ?? ''
  expect((await ask(`${url}/${key}`, { headers: { ...headers, 'if-none-match': etag } })).status).toBe(304)
  const openapi = await ask(`${url}/openapi.json`)
  expect(await openapi.json()).toMatchObject({ openapi: '3.1.0', servers: [{ url: '/results' }] })
}

/** Runs an example until it has printed so many lines, and ends it after the test. */
async function withExample(
  file: string,
  lineCount: number,
  env: Record<string, string>,
  test: (lines: string[]) => Promise<void>,
): Promise<void> {
  const folder = join(dir.path, file)
  const child = spawn(process.execPath, [join(examples, file)], {
    env: { PATH: process.env.PATH, PORT: '0', RESULTS_DIR: folder, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  try {
    const lines: string[] = []
    for await (const line of createInterface(child.stdout)) if (lines.push(line) === lineCount) break
    expect(lines).toHaveLength(lineCount)
    await test(lines)
    child.kill('SIGTERM')
    expect(await exited).toEqual([0, null])
  } finally {
    child.kill('SIGKILL')
    await exited
  }
}

it('works on plain node:http, as its example mounts it', async () => {
  await withExample('node-http.js', 3, { RESULTS_SECRET: SECRET }, async ([endpoint = '', token = '']) => {
    await useEndpoint(fetch, endpoint.replace(/^.*?=/, ''), bearer(token.replace(/^.*?=/, '')))
  })
})

it('works in Hono, as its example mounts it', async () => {
  await withExample('hono.js', 1, { RESULTS_API_KEY: 'known' }, async ([url = '']) => {
    await useEndpoint(fetch, url, { 'x-api-key': 'known' })
    expect(await (await fetch(new URL('/', url))).text()).toBe('results are at /results')
  })
})

it('works in Next, as its example mounts it', async () => {
  vi.stubEnv('RESULTS_DIR', join(dir.path, 'next'))
  vi.stubEnv('RESULTS_SECRET', SECRET)
  try {
    const routes = (await import(pathToFileURL(join(examples, 'next-route.js')).href)) as Record<
      string,
      (request: Request, context: unknown) => Promise<Response>
    >
    // Next picks the function that is named like the method, and hands it the path's parts as well.
    const ask: Ask = async (url, init = {}) => {
      const route = routes[init.method ?? 'GET']
      if (route === undefined) throw new Error(`no route for ${init.method}`)
      return route(new Request(url, init), { params: Promise.resolve({ path: [] }) })
    }
    await useEndpoint(ask, 'http://next.test/results', bearer(tokenFor('worker-123')))
    const headers = bearer(tokenFor('worker-123'))
    expect((await ask(`http://next.test/results/${key}`, { method: 'DELETE', headers })).status).toBe(204)
  } finally {
    vi.unstubAllEnvs()
  }
})
