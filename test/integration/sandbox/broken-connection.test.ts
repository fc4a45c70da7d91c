import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it } from 'vitest'
import { startLocalE2b } from '../../../src/local/e2b/index.js'
import { E2bSandboxes } from '../../../src/sandbox/e2b-sandboxes.js'
import { startTcpProxy } from '../../support/proxy.js'

it('says of a call whose connection broke that it may be repeated, and of a sandbox that went that it is gone', async (test) => {
  const e2b = await startLocalE2b()
  test.onTestFinished(() => e2b.close())
  const proxy = await startTcpProxy({ host: '127.0.0.1', port: e2b.port }, () => ({ kind: 'pass' }))
  test.onTestFinished(() => proxy[Symbol.asyncDispose]())
  const url = `http://127.0.0.1:${proxy.port}`
  const sandboxes = new E2bSandboxes({ apiKey: e2b.env.E2B_API_KEY, apiUrl: url, sandboxUrl: url })
  const sandbox = await sandboxes.create({ timeoutMs: 60_000, metadata: {}, envs: {} })
  const running = await sandbox.start('sleep 60')
  const ended = running.wait()
  ended.catch(() => {})

  proxy.cut()
  await expect(ended).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true })
  await expect(sandbox.start('true')).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true })
  await expect(sandbox.writeFiles([{ path: '/tmp/x', data: '' }])).rejects.toMatchObject({
    code: 'UNAVAILABLE',
  })

  proxy.restore()
  expect(await sandbox.run('echo still here')).toMatchObject({ exitCode: 0, stdout: 'still here\n' })
  // Of a command that prints for days the SDK keeps nothing that was passed on, and misses nothing of how it ended.
  let heard = ''
  const talking = await sandbox.start(
    'echo a; echo b >&2; until [ -e /tmp/go ]; do sleep 0.01; done; echo c; exit 3',
    {
      onStdout: (text) => {
        heard += text
      },
      keepsOutput: false,
    },
  )
  await sandbox.writeFiles([{ path: '/tmp/go', data: '' }])
  expect(await talking.wait()).toEqual({ exitCode: 3, stdout: '', stderr: '' })
  expect(heard).toBe('a\nc\n')
  const second = await sandbox.start('sleep 60')
  const secondEnded = second.wait()
  secondEnded.catch(() => {})
  // A gateway that cannot reach a sandbox for a moment; a moment later it runs.
  const gateway = createServer(({ url: path }, response) => {
    response.writeHead(path?.startsWith('/health') === true ? 204 : 502).end()
  }).listen(0, '127.0.0.1')
  await once(gateway, 'listening')
  test.onTestFinished(() => void gateway.close())
  const sandboxUrl = `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`
  const behind = new E2bSandboxes({ apiKey: e2b.env.E2B_API_KEY, apiUrl: url, sandboxUrl })
  const unreached = await behind.connect(sandbox.id, 60_000)
  await expect(unreached.start('true')).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true })
  await sandboxes.kill(sandbox.id)
  await expect(secondEnded).rejects.toMatchObject({ code: 'SANDBOX_GONE' })
  await expect(sandbox.start('true')).rejects.toMatchObject({ code: 'SANDBOX_GONE' })
})
