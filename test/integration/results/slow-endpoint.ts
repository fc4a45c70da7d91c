import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ResultRecord } from '../../../src/protocol/record.js'

/** What becomes of the answer to a request for a body: it stops after so many bytes of it, and stays open or breaks. */
export interface BodyFault {
  readonly afterBytes: number
  readonly ending: 'hang' | 'break'
}

/** An endpoint with one result, whose bodies can be made to break off. */
export interface SlowEndpoint extends AsyncDisposable {
  readonly url: string
  /** The first byte that each request for the body asked for. */
  readonly offsets: number[]
  /** Says for the n-th request for the body, from 0, what is to go wrong. */
  fault: (n: number) => BodyFault | undefined
  /** What it serves from now on. */
  body: Buffer
}

/** Starts it; disposing stops it, with every answer that hangs. */
export async function startSlowEndpoint(record: ResultRecord, body: Buffer): Promise<SlowEndpoint> {
  const server: Server = createServer((request, response) => {
    if (request.url?.endsWith('.meta.json')) {
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify(record))
      return
    }
    const offset = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    const fault = endpoint.fault(endpoint.offsets.length)
    endpoint.offsets.push(offset)
    const { length } = endpoint.body
    response.statusCode = offset === 0 ? 200 : 206
    response.setHeader('content-length', length - offset)
    if (offset > 0) response.setHeader('content-range', `bytes ${offset}-${length - 1}/${length}`)
    send(response, endpoint.body.subarray(offset), fault)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint: SlowEndpoint = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/results`,
    offsets: [],
    fault: () => undefined,
    body,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
  return endpoint
}

function send(response: ServerResponse, bytes: Buffer, fault: BodyFault | undefined): void {
  if (fault === undefined) {
    response.end(bytes)
    return
  }
  response.write(bytes.subarray(0, fault.afterBytes), () => {
    if (fault.ending === 'break') response.socket?.end()
  })
}
