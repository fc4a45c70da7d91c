import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { makeAuthority } from '../../support/persister/authority.js'
import { startHttpReceiver } from '../../support/persister/http-receiver.js'
import { BUNDLE, type RunResult, run } from '../../support/persister/program.js'
import { scratch } from '../../support/persister/scratch.js'

describe('an endpoint of a private authority', () => {
  it('is believed once Node knows the authority, and otherwise not tried again', async (test) => {
    const folder = await scratch(test)
    const { authority, ...tls } = await makeAuthority(folder)
    const requests: string[] = []
    let connections = 0
    const server = createServer(tls, (request, response) => {
      requests.push(`${request.method} ${request.headers.host}`)
      request.resume().once('end', () => response.writeHead(200).end())
    })
    server.on('connection', () => {
      connections++
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    test.onTestFinished(async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    })
    const host = `localhost:${(server.address() as AddressInfo).port}`
    const receiver = await startHttpReceiver()
    test.onTestFinished(() => receiver[Symbol.asyncDispose]())
    const store = (env: Record<string, string>): Promise<RunResult> =>
      run([process.execPath, BUNDLE, '-q', '--json', '-', '-n', 'f'], {
        input: 'x',
        env: { WORKER_ID: 't', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), ...env },
      })
    const http = { WORKER_RESULTS_ENDPOINT: `https://${host}` }
    const s3 = {
      WORKER_RESULTS_S3_BUCKET: 'b',
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: 'secret',
      AWS_ENDPOINT_URL_S3: `https://${host}`,
    }
    for (const [tier, env] of Object.entries({ http, s3 })) {
      const trusted = await store({ ...env, NODE_EXTRA_CA_CERTS: authority })
      expect(trusted).toMatchObject({ status: 0, stderr: '' })
      expect(JSON.parse(trusted.stdout)).toMatchObject({ stored: [{ tier }] })
    }
    expect(requests).toEqual([`POST ${host}`, `PUT ${host}`])
    const before = connections
    const fallen = await store({ ...s3, WORKER_RESULTS_ENDPOINT: receiver.url })
    expect(fallen.status).toBe(0)
    expect(fallen.stderr).toMatch(/^persist-result: S3 storage failed: [^\n]*certificate[^\n]*\n$/)
    expect(connections).toBe(before + 1)
    expect(requests).toHaveLength(2)
    expect(JSON.parse(fallen.stdout)).toMatchObject({ stored: [{ tier: 'http' }] })
  })
})
