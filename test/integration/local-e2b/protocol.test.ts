import { request } from 'node:http'
import { AuthenticationError, Sandbox } from 'e2b'
import { beforeAll, describe, expect, it } from 'vitest'
import { eventually, ISOLATIONS, startHarness, useHarness } from './harness.js'

const harness = useHarness({ isolation: ISOLATIONS[0] })
let sandbox: Sandbox
beforeAll(async () => {
  sandbox = await harness().create()
})

async function control(path: string, init: RequestInit = {}): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${harness().e2b.url}${path}`, {
    ...init,
    headers: { 'X-API-KEY': harness().connection.apiKey, ...init.headers },
  })
  const text = await response.text()
  return { status: response.status, body: text === '' ? undefined : JSON.parse(text) }
}

/** A message as the streaming half of the Connect protocol frames it. */
function frame(message: string, flags = 0): Buffer {
  const header = Buffer.alloc(5)
  header.writeUInt8(flags)
  header.writeUInt32BE(Buffer.byteLength(message), 1)
  return Buffer.concat([header, Buffer.from(message)])
}

function unframe(body: Buffer): { flags: number; message: unknown }[] {
  const found: { flags: number; message: unknown }[] = []
  for (let at = 0; at < body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1)
    found.push({ flags: body.readUInt8(at), message: JSON.parse(body.subarray(at + 5, end).toString()) })
    at = end
  }
  return found
}

async function stream(method: string, body: Buffer, headers: Record<string, string> = {}) {
  const response = await harness().envd(sandbox, method, {
    method: 'POST',
    body: new Uint8Array(body),
    headers: { 'Content-Type': 'application/connect+json', 'Connect-Protocol-Version': '1', ...headers },
  })
  return { status: response.status, frames: unframe(Buffer.from(await response.arrayBuffer())) }
}

describe('the control plane', () => {
  it('lets nobody in without the key', async () => {
    expect((await fetch(`${harness().e2b.url}/v2/sandboxes`)).status).toBe(401)
    await expect(Sandbox.create({ ...harness().connection, apiKey: 'e2b_0123' })).rejects.toThrow(
      AuthenticationError,
    )
    expect(await control('/volumes', { headers: { 'X-API-KEY': 'x' } })).toMatchObject({ status: 401 })
  })

  it('refuses what it cannot read', async () => {
    const post = (body: string) => control('/v2/sandboxes', { method: 'POST', body })
    for (const body of [
      '{',
      '[]',
      '{}',
      '{"templateID":1}',
      '{"templateID":"x","timeout":-1}',
      '{"templateID":"x","metadata":{"a":1}}',
    ]) {
      expect([body, await post(body)]).toMatchObject([body, { status: 400, body: { code: 400 } }])
    }
    for (const query of [
      'limit=0',
      'limit=x',
      'nextToken=%00',
      'order=up',
      'metadata=%25',
      'startedAfter=now',
    ]) {
      expect([query, await control(`/v2/sandboxes?${query}`)]).toMatchObject([query, { status: 400 }])
    }
    expect(await control('/sandboxes/%E0%A4%A')).toMatchObject({ status: 400 })
    expect(await control('/sandboxes/..%2F..%2Fetc')).toMatchObject({ status: 404, body: { code: 404 } })
    expect(await control('/nothing')).toMatchObject({ status: 404 })
  })

  it('survives oversized headers', async () => {
    expect((await fetch(harness().e2b.url, { headers: { 'x-large': 'x'.repeat(100_000) } })).status).toBe(431)
    expect(await sandbox.isRunning()).toBe(true)
  })
})

describe('the daemon of a sandbox', () => {
  it('lets nobody in without the token', async () => {
    const headers = { 'X-Access-Token': 'wrong' }
    for (const path of ['/files?path=/etc/passwd', '/process.Process/List', '/process.Process/Start']) {
      const method = path.startsWith('/files') ? 'GET' : 'POST'
      const response = await harness().envd(sandbox, path, { method, headers })
      const refused = response.status === 401 || (await response.text()).includes('"code":"unauthenticated"')
      expect([path, refused]).toEqual([path, true])
    }
  })

  it('answers for an unknown sandbox as the proxy does', async () => {
    const response = await harness().envd(sandbox, '/health', { headers: { 'E2b-Sandbox-Id': 'nobody' } })
    expect([response.status, await response.json()]).toEqual([
      502,
      { sandboxId: 'nobody', message: 'The sandbox was not found', code: 502 },
    ])
  })

  it('refuses malformed messages within the stream', async () => {
    const bodies = [
      Buffer.from(''),
      Buffer.from([0, 0, 0, 0, 200, 1]),
      frame('{'),
      frame('{"process":{}}'),
      frame('{"process":{"cmd":"x","args":"y"}}'),
      frame('{}', 1),
    ]
    for (const body of bodies) {
      const { status, frames } = await stream('/process.Process/Start', body)
      expect([status, frames.length, frames[0]?.flags]).toEqual([200, 1, 2])
      expect(['invalid_argument', 'unimplemented']).toContain(
        (frames[0]?.message as { error?: { code?: string } } | undefined)?.error?.code,
      )
    }
  })

  it('answers unary calls with the error and its status', async () => {
    const call = async (method: string, body: string) => {
      const response = await harness().envd(sandbox, method, { method: 'POST', body })
      return { status: response.status, body: await response.json() }
    }
    expect(await call('/filesystem.Filesystem/Stat', '{')).toMatchObject({
      status: 400,
      body: { code: 'invalid_argument' },
    })
    expect(await call('/filesystem.Filesystem/Stat', '{"path":"/none"}')).toMatchObject({
      status: 404,
      body: { code: 'not_found' },
    })
    expect(await call('/filesystem.Filesystem/Stat', '{"path":"/a\\u0000b"}')).toMatchObject({ status: 400 })
    expect(
      await call('/filesystem.Filesystem/Stat', JSON.stringify({ path: `/${'x'.repeat(5000)}` })),
    ).toMatchObject({ status: 400 })
    expect(
      await call('/process.Process/SendSignal', '{"process":{"pid":1},"signal":"SIGNAL_SIGKILL"}'),
    ).toMatchObject({ status: 404 })
    expect(await call('/process.Process/StreamInput', '{}')).toMatchObject({ status: 404 })
  })

  it('gives signs of life', async () => {
    const start = {
      process: { cmd: '/bin/bash', args: ['-c', 'until [ -e /workspace/signs ]; do sleep 0.05; done'] },
      stdin: false,
    }
    const streaming = stream('/process.Process/Start', frame(JSON.stringify(start)), {
      'Keepalive-Ping-Interval': '0.05',
    })
    const runs = async () => JSON.stringify(await sandbox.commands.list()).includes('/workspace/signs')
    await eventually(runs, (is) => is)
    // The server's timers are of this very process, and none of them is later than these.
    for (let i = 0; i < 4; i++) await new Promise((done) => setTimeout(done, 100))
    await sandbox.files.write('/workspace/signs', '')
    const { frames } = await streaming
    expect(frames[0]?.message).toMatchObject({ event: { start: { pid: expect.any(Number) } } })
    expect(
      frames.filter(({ message }) => JSON.stringify(message) === '{"event":{"keepalive":{}}}').length,
    ).toBeGreaterThan(2)
    expect(frames.at(-2)?.message).toEqual({
      event: { end: { exitCode: 0, exited: true, status: 'exit status 0' } },
    })
    expect(frames.at(-1)).toEqual({ flags: 2, message: {} })
  })

  it('slows a command down that nobody reads fast enough, and forgets no byte', async () => {
    const start = {
      process: { cmd: '/bin/bash', args: ['-c', 'yes | head -c 30000000; touch /workspace/all-written'] },
    }
    const { envdAccessToken } = await harness().detail(sandbox)
    const call = request(`${harness().e2b.url}/process.Process/Start`, {
      method: 'POST',
      headers: { 'E2b-Sandbox-Id': sandbox.sandboxId, 'X-Access-Token': envdAccessToken },
    })
    call.end(frame(JSON.stringify(start)))
    const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
      call.once('response', resolve)
      call.once('error', reject)
    })
    // Not reading: what fits between the two is far less than what the command has to say.
    const { processes } = (await (
      await harness().envd(sandbox, '/process.Process/List', { method: 'POST', body: '{}' })
    ).json()) as { processes: unknown[] }
    expect(processes).toHaveLength(1)
    // Time enough to write it all, were there anywhere to put it.
    for (const until = Date.now() + 1000; Date.now() < until; ) {
      expect(await sandbox.files.exists('/workspace/all-written')).toBe(false)
    }
    const chunks: Buffer[] = []
    for await (const chunk of response) chunks.push(chunk as Buffer)
    const written = unframe(Buffer.concat(chunks))
      .map(({ message }) => (message as { event?: { data?: { stdout?: string } } }).event?.data?.stdout ?? '')
      .reduce((sum, data) => sum + Buffer.from(data, 'base64').length, 0)
    expect(written).toBe(30_000_000)
    expect(await sandbox.files.exists('/workspace/all-written')).toBe(true)
  })
})

describe('the address', () => {
  it('is loopback unless another is given', async () => {
    expect(harness().e2b.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    const other = await startHarness({ isolation: 'plain', host: '::1' })
    expect(other.e2b.url).toMatch(/^http:\/\/\[::1\]:\d+$/)
    await other.e2b.close()
    await expect(startHarness({ isolation: 'plain', port: harness().e2b.port })).rejects.toThrow('EADDRINUSE')
  })
})
