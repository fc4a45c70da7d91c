import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { toNodeListener } from '../../../src/endpoint/node/node-listener.js'
import type { BrokerOptions } from '../../../src/grants/granter.js'
import { Granter } from '../../../src/grants/granter.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { type FaultProxy, type FaultRule, startFaultProxy } from '../persister/fault-proxy.js'
import { openS3Place, type S3Place, type Target } from '../persister/targets.js'
import type { S3Server } from '../s3/servers.js'

const TOKEN_SECRET = 'a secret of the tests, and of nobody else'

/** A bucket that workers reach only through a conductor's broker, over HTTP, and a fault proxy before the store. */
export interface BrokerPlace extends AsyncDisposable {
  readonly target: Target
  readonly place: S3Place
  /** As the conductor reaches it: past the proxy. */
  readonly at: S3Location
  readonly proxy: FaultProxy
  /** Requests to the broker, by operation. */
  readonly asked: string[]
  /** Goes on as another process of the same conductor would: nothing in memory is left. */
  restart(): void
  /** Answers nothing until it is restarted. */
  crash(): void
}

/** Opens one on a server. */
export async function openBrokerPlace(
  server: S3Server,
  rule: FaultRule = () => undefined,
  options: BrokerOptions = {},
  maxResultBytes = 5 * 1024 ** 3,
): Promise<BrokerPlace> {
  const place = await openS3Place({ ...server, [Symbol.asyncDispose]: async () => undefined })
  const proxy = await startFaultProxy(server.url, rule)
  const { region, credentials } = server
  const common = { bucket: place.bucket, prefix: 'out/put', region, credentials }
  // What is signed names the address that the worker will use.
  const forWorkers = openS3Location({ ...common, endpoint: proxy.url })
  const at = openS3Location({ ...common, endpoint: server.url })
  const asked: string[] = []
  let isUp = true
  let url = ''
  const make = (): Granter =>
    new Granter({ s3: forWorkers, maxResultBytes, broker: { ...options, url, tokenSecret: TOKEN_SECRET } })
  let granter: Granter
  let handler: (request: Request) => Promise<Response>
  const listener = toNodeListener(async (request) => {
    if (!isUp) return new Response('down', { status: 503 })
    const text = await request.text()
    asked.push((JSON.parse(text) as { op: string }).op)
    const { method, headers } = request
    return handler(new Request(request.url, { method, headers, body: text }))
  })
  const http = createServer((request, response) => void listener(request, response))
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/`
  granter = make()
  handler = granter.handler()
  return {
    place,
    at,
    proxy,
    asked,
    crash: () => {
      isUp = false
    },
    restart: () => {
      granter = make()
      handler = granter.handler()
      isUp = true
    },
    target: {
      ...place.withKeys,
      name: `${server.name} S3, broker`,
      env: async (taskId) => {
        const expiresAt = new Date(Date.now() + 600_000)
        const grant = await granter.issue({ taskId, expiresAt, access: 'broker' })
        return { WORKER_RESULTS_GRANT: JSON.stringify(grant) }
      },
    },
    [Symbol.asyncDispose]: async () => {
      http.closeAllConnections()
      await new Promise((closed) => http.close(closed))
      forWorkers.close()
      at.close()
      await proxy[Symbol.asyncDispose]()
      await place[Symbol.asyncDispose]()
    },
  }
}
