import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { expect, it } from 'vitest'
import { createSandbox } from '../../../../src/conductor/spawn/create-sandbox.js'
import { E2bSandboxes } from '../../../../src/sandbox/e2b-sandboxes.js'
import type { SandboxProvider } from '../../../../src/sandbox/remote-sandbox.js'

it('nothing is looked for where no request for a sandbox can have arrived', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  const e2b = new E2bSandboxes({ apiKey: `e2b_${'0'.repeat(40)}`, apiUrl: `http://127.0.0.1:${port}` })
  let listings = 0
  const provider: SandboxProvider = {
    create: (options) => e2b.create(options),
    connect: (...args) => e2b.connect(...args),
    kill: (...args) => e2b.kill(...args),
    list: (...args) => {
      listings += 1
      return e2b.list(...args)
    },
  }
  await expect(
    createSandbox(provider, { timeoutMs: 1_000, metadata: {}, envs: {} }, 0),
  ).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    retryable: true,
    message: expect.stringContaining(`connect ECONNREFUSED 127.0.0.1:${port}`),
  })
  expect(listings).toBe(0)
})
