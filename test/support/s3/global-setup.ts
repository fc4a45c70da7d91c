import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestProject } from 'vitest/node'
import { rgwSetupHint } from './find-rgw.js'
import { type Rgw, type RgwAccess, startRgw } from './rgw.js'

declare module 'vitest' {
  interface ProvidedContext {
    /** Where a worker asks for the run's one RGW. */
    rgwBroker: string
  }
}

/** What the broker answers to a worker. */
export type RgwAnswer = { readonly access: RgwAccess } | { readonly error: string }

/**
 * Lets all workers of a run share one RGW, which is started when the first of them asks: runs without S3 suites do
 * not pay for it. Returns the teardown.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  let starting: Promise<Rgw> | undefined
  let hasTold = false
  const server = createServer(async (request, response) => {
    if (request.url === '/missing') {
      if (!hasTold)
        console.warn(`S3 suites run without Ceph RGW, which is not on this machine: ${rgwSetupHint}.`)
      hasTold = true
      response.end()
      return
    }
    starting ??= startRgw()
    const answer: RgwAnswer = await starting.then(
      ({ access }) => ({ access }),
      (error: Error) => ({ error: error.message }),
    )
    response.end(JSON.stringify(answer))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  project.provide('rgwBroker', `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  return async () => {
    server.close()
    server.closeAllConnections()
    // A start that failed was reported to whoever asked for it.
    const rgw = await starting?.catch(() => undefined)
    await rgw?.close()
  }
}
