import { afterAll, beforeAll, expect, it } from 'vitest'
import { z } from 'zod'
import { createResultsHandler, type EndpointBackend } from '../../../src/endpoint/index.js'
import { ConductorError } from '../../../src/errors.js'
import { curl } from './curl.js'
import { formOf } from './post.js'
import { inDirectory, SECRET, serveFolder, type TestBackend, tokenFor } from './servers.js'

interface Reference {
  readonly $ref: string
}
interface ResponseObject {
  readonly description: string
  readonly content?: Record<
    string,
    { readonly schema?: Reference & { readonly oneOf?: readonly Reference[] } }
  >
  readonly headers?: Record<string, unknown>
}
interface Operation {
  readonly operationId: string
  readonly security?: readonly unknown[]
  readonly responses: Record<string, ResponseObject>
}
interface Document {
  readonly openapi: string
  readonly servers: readonly { readonly url: string }[]
  readonly security: readonly unknown[]
  readonly paths: Record<string, Record<string, Operation>>
  readonly components: {
    readonly schemas: Record<string, z.core.JSONSchema.JSONSchema>
    readonly securitySchemes?: Record<string, unknown>
  }
}

const BASE = '/api/results'
const origin = 'http://endpoint.test'
const key = 't/20260114-120000-r'
const resultPath = '/{task_id}/{result}'
const recordPath = '/{task_id}/{result}.meta.json'

let kept: TestBackend
let handler: (request: Request) => Promise<Response>
let document: Document
/** What goes wrong in the storage; undefined when it works. */
let failure: Error | undefined

beforeAll(async () => {
  kept = await inDirectory.open()
  const options = { tokenSecrets: [SECRET], basePath: BASE, onFault: () => undefined }
  const limits = { maxFileBytes: 1000, maxTaskResults: 2, stallTimeoutMs: 200 }
  handler = createResultsHandler({ ...options, limits, backend: failing(kept.backend) })
  const response = await handler(new Request(`${origin}${BASE}/openapi.json`))
  document = (await response.json()) as Document
})
afterAll(() => kept?.[Symbol.asyncDispose]())

/** The backend, except that it fails whenever `failure` says how. */
function failing(backend: EndpointBackend): EndpointBackend {
  return new Proxy(backend, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      return async (...args: unknown[]) => {
        if (failure !== undefined) throw failure
        return Reflect.apply(value, target, args)
      }
    },
  })
}

interface Probe {
  readonly path: string
  readonly method: string
  readonly status: number
  readonly query?: string
  readonly headers?: Record<string, string>
  readonly body?: NonNullable<RequestInit['body']>
  readonly token?: string | null
  readonly failure?: Error
  /** Where the request goes when that is not plain from the path. */
  readonly target?: string
}

const form = (more: Record<string, string> = {}, body = 'hello'): FormData =>
  formOf({ key, task_id: 't', ...more }, body)
const multipart = { 'content-type': 'multipart/form-data; boundary=x' }
const unavailable = new ConductorError('UNAVAILABLE', 'secret detail', { retryable: true })
const broken = new Error('secret detail at /srv/results')
const full = Object.assign(new Error('secret detail'), { code: 'ENOSPC' })

/** One request for every answer that the document promises, in an order in which they come about. */
function probes(): Probe[] {
  const post = { path: '/', method: 'post' }
  const all: Probe[] = [
    { path: '/openapi.json', method: 'get', status: 200, token: null },
    { ...post, status: 201, body: form() },
    { ...post, status: 200, body: form() },
    { ...post, status: 400, headers: multipart, body: 'no form' },
    { ...post, status: 408, headers: multipart, body: new ReadableStream() },
    { ...post, status: 409, body: form({}, 'other') },
    { ...post, status: 413, body: form({ key: 'large' }, 'x'.repeat(1001)) },
    { ...post, status: 415, body: '{}' },
    { ...post, status: 422, body: form({ key: '../x' }) },
    { ...post, status: 201, body: form({ key: 'second' }) },
    { ...post, status: 507, body: form({ key: 'third' }) },
    { ...post, status: 507, body: form({ key: 'third' }), failure: full },
    { path: '/', method: 'get', status: 200, query: '?task_id=t' },
    { path: '/', method: 'get', status: 200, query: '?tasks', token: tokenFor('*') },
    { path: '/', method: 'get', status: 400 },
    { path: '/', method: 'get', status: 400, query: '?tasks&task_id=t', token: tokenFor('*') },
    { path: '/', method: 'get', status: 403, query: '?tasks' },
    { path: resultPath, method: 'get', status: 206, headers: { range: 'bytes=0-1' } },
    { path: resultPath, method: 'get', status: 416, headers: { range: 'bytes=5-' } },
    { path: recordPath, method: 'get', status: 200 },
  ]
  for (const method of ['get', 'head']) {
    all.push({ path: resultPath, method, status: 200 })
    all.push({ path: resultPath, method, status: 304, headers: { 'if-none-match': '*' } })
  }
  for (const method of ['get', 'head', 'delete']) {
    all.push({ path: resultPath, method, status: 412, headers: { 'if-match': '"other"' } })
  }
  for (const [path, methods] of [
    ['/', ['get', 'post']],
    [resultPath, ['get', 'head', 'delete']],
    [recordPath, ['get']],
  ] as const) {
    for (const method of methods) {
      const request = { path, method, query: '?task_id=t', ...(method === 'post' ? { body: form() } : {}) }
      const again = (): Pick<Probe, 'body'> => (method === 'post' ? { body: form() } : {})
      all.push({ ...request, status: 401, token: null })
      all.push({
        ...request,
        ...again(),
        status: 403,
        token: tokenFor('t', [method === 'delete' ? 'read' : 'delete']),
      })
      all.push({ ...request, ...again(), status: 500, failure: broken })
      all.push({ ...request, ...again(), status: 503, failure: unavailable })
      if (path !== '/') all.push({ ...request, status: 404, target: `${path}-not-there` })
    }
    all.push({ path, method: 'get', status: 405, headers: { 'x-method': 'PUT' } })
  }
  all.push({ ...post, status: 405, headers: { 'x-method': 'PUT' } })
  all.push({ path: resultPath, method: 'delete', status: 204 })
  return all
}

/** A form as bytes: Node 24's own stream of a form fails, unhandled, when its reader stops half-way, as a refusal does. */
async function serialize(form: FormData): Promise<{ body: ArrayBuffer; headers: Record<string, string> }> {
  const whole = new Response(form)
  return {
    headers: { 'content-type': whole.headers.get('content-type') ?? '' },
    body: await whole.arrayBuffer(),
  }
}

async function ask(probe: Probe): Promise<Response> {
  const { path, method, query = '', headers = {}, body, target, token = tokenFor('t') } = probe
  const [taskId = '', name = ''] = key.split('/')
  const filled = (target ?? path).replace('{task_id}', taskId).replace('{result}', name)
  const file = filled.replace('.meta.json-not-there', '-not-there.meta.json')
  const authorization = token === null ? {} : { authorization: `Bearer ${token}` }
  const sent = body instanceof FormData ? await serialize(body) : { body, headers: {} }
  failure = probe.failure
  try {
    return await handler(
      new Request(`${origin}${BASE}${file}${query}`, {
        // A method that the path does not have is asked for in place of one that it has.
        method: headers['x-method'] ?? method.toUpperCase(),
        headers: { ...headers, ...authorization, ...sent.headers },
        ...(sent.body === undefined ? {} : { body: sent.body, duplex: 'half' }),
      }),
    )
  } finally {
    failure = undefined
  }
}

it('is a document of the endpoint as it is mounted', async () => {
  expect(document.openapi).toBe('3.1.0')
  expect(document.servers).toEqual([{ url: BASE }])
  expect(document.components.securitySchemes).toEqual({ token: { type: 'http', scheme: 'bearer' } })
  const open = createResultsHandler({ backend: kept.backend, authenticate: 'none' })
  const other = (await (await open(new Request(`${origin}/openapi.json`))).json()) as Document
  expect(other.servers).toEqual([{ url: '/' }])
  expect(other.components.securitySchemes).toBeUndefined()
  expect(JSON.stringify(other)).not.toContain('"401"')
})

it('promises exactly what the handler answers, status by status and field by field', async () => {
  const answered = new Set<string>()
  for (const probe of probes()) {
    const what = `${probe.method} ${probe.path} ${probe.status}`
    const response = await ask(probe)
    const text = await response.text()
    expect(`${what}: ${response.status}`, text).toBe(`${what}: ${probe.status}`)
    const promised = document.paths[probe.path]?.[probe.method]?.responses[probe.status]
    if (probe.headers?.['x-method'] === undefined || promised !== undefined) {
      expect(promised, what).toBeDefined()
      answered.add(what)
    }
    for (const header of Object.keys(promised?.headers ?? {}))
      expect(response.headers.has(header), what).toBe(true)
    expect(response.headers.get('x-content-type-options')).toBe('nosniff')
    expect(text).not.toContain('secret detail')
    const [[type, { schema = undefined } = {}] = []] = Object.entries(promised?.content ?? {})
    if (type === 'application/json') {
      expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8')
      if (schema === undefined) continue
      const fitting = (schema.oneOf ?? [schema]).filter(({ $ref }) => {
        const own = document.components.schemas[$ref.replace('#/components/schemas/', '')]
        expect(own, $ref).toBeDefined()
        return z.fromJSONSchema(own as z.core.JSONSchema.JSONSchema).safeParse(JSON.parse(text)).success
      })
      expect(fitting, `${what}: ${text}`).toHaveLength(1)
    } else if (type === undefined) {
      expect(text).toBe('')
    }
  }
  const promised = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => method !== 'parameters')
      .flatMap(([method, { responses }]) =>
        Object.keys(responses).map((status) => `${method} ${path} ${status}`),
      ),
  )
  expect([...answered].sort()).toEqual(promised.sort())
})

it('refuses what does not match its schemas', () => {
  const record = z.fromJSONSchema(document.components.schemas.Record as z.core.JSONSchema.JSONSchema)
  expect(record.safeParse({ v: 1 }).success).toBe(false)
})

it('is served to everybody', async () => {
  await using served = await serveFolder({ tokenSecrets: [SECRET] })
  expect((await curl(`${served.url}/openapi.json`)).status).toBe(200)
  expect((await curl('-I', `${served.url}/openapi.json`)).body).toBe('')
})
