import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { makeAuthority } from '../../support/persister/authority.js'
import { startHttpReceiver } from '../../support/persister/http-receiver.js'
import { type RunResult, run } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'
import { SCRIPT, shells } from './shells.js'

interface Endpoint {
  readonly url: string
  /** Arrival of each request, on the clock of `performance.now()`. */
  readonly arrivalsMs: number[]
  /** Connections, also those that ended before a request. */
  connections: number
}

/** Starts a server that answers each request, once its body is there, as `answer` says. */
async function startEndpoint(
  test: Cleanup,
  answer: RequestListener,
  tls?: { readonly key: string; readonly cert: string },
): Promise<Endpoint> {
  const endpoint = { url: '', arrivalsMs: [] as number[], connections: 0 }
  const listener: RequestListener = (request: IncomingMessage, response) => {
    endpoint.arrivalsMs.push(performance.now())
    request.resume().once('end', () => answer(request, response))
  }
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener)
  server.on('connection', () => {
    endpoint.connections++
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  test.onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  const { port } = server.address() as AddressInfo
  endpoint.url = tls === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`
  return endpoint
}

describe.concurrent.each(shells)('an endpoint that misbehaves, $name', ({ argv }) => {
  async function store(test: Cleanup, env: Record<string, string>): Promise<RunResult> {
    const folder = await scratch(test)
    return await run([...argv, SCRIPT, '-q', '--json', '-', '-n', 'f'], {
      input: 'x',
      env: { WORKER_ID: 't', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), ...env },
    })
  }

  it('is sent a body again that was damaged on its way', async (test) => {
    let n = 0
    const { url } = await startEndpoint(test, (_request, response) => {
      if (n++ > 0) response.writeHead(201).end()
      else response.writeHead(422).end('{"error":{"code":"digest_mismatch","message":"…"}}')
    })
    const result = await store(test, { WORKER_RESULTS_ENDPOINT: url })
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect(n).toBe(2)
  })

  it('is left alone for as long as it asks', async (test) => {
    let n = 0
    const { url, arrivalsMs } = await startEndpoint(test, (_request, response) => {
      if (n++ > 0) response.writeHead(201).end()
      else response.writeHead(503, { 'retry-after': '1' }).end()
    })
    expect(await store(test, { WORKER_RESULTS_ENDPOINT: url })).toMatchObject({ status: 0, stderr: '' })
    const [first = 0, second = 0] = arrivalsMs
    expect(second - first).toBeGreaterThanOrEqual(1000)
  })

  it('is given up when it asks for longer than there is', async (test) => {
    const { url, arrivalsMs } = await startEndpoint(test, (_request, response) => {
      response.writeHead(503, { 'retry-after': '3600' }).end()
    })
    const env = { WORKER_RESULTS_ENDPOINT: url, WORKER_RESULTS_DEADLINE_SECONDS: '15' }
    const startedMs = performance.now()
    const result = await store(test, env)
    expect(result.stderr).toMatch(/^persist-result: HTTP storage failed: HTTP 503\n$/)
    expect(arrivalsMs).toHaveLength(1)
    // Of such a time it would wait 20 seconds.
    expect(performance.now() - startedMs).toBeLessThan(20_000)
  })

  it('is believed for its private authority, and not tried again for a wrong certificate', async (test) => {
    const { authority, ...tls } = await makeAuthority(await scratch(test))
    const endpoint = await startEndpoint(test, (_request, response) => response.writeHead(201).end(), tls)
    for (const name of ['CURL_CA_BUNDLE', 'SSL_CERT_FILE']) {
      const trusted = await store(test, { WORKER_RESULTS_ENDPOINT: endpoint.url, [name]: authority })
      expect(trusted).toMatchObject({ status: 0, stderr: '' })
    }
    expect(endpoint.arrivalsMs).toHaveLength(2)
    const before = endpoint.connections
    const receiver = await startHttpReceiver()
    test.onTestFinished(() => receiver[Symbol.asyncDispose]())
    const fallen = await store(test, {
      WORKER_RESULTS_S3_BUCKET: 'b',
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: 'secret',
      AWS_ENDPOINT_URL_S3: endpoint.url,
      WORKER_RESULTS_ENDPOINT: receiver.url,
    })
    expect(fallen.status).toBe(0)
    expect(fallen.stderr).toMatch(/^persist-result: S3 storage failed: [^\n]*certificate[^\n]*\n$/i)
    expect(endpoint.connections).toBe(before + 1)
    expect(endpoint.arrivalsMs).toHaveLength(2)
    expect(receiver.posts).toHaveLength(1)
    expect(JSON.parse(fallen.stdout)).toMatchObject({ stored: [{ tier: 'http' }] })
  })
})
