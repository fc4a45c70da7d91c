import { once } from 'node:events'
import { createServer, request as forward, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'

/** What becomes of a request instead of reaching the server. */
export type Fault =
  /** Answers at once, without reading the body. */
  | {
      readonly kind: 'answer'
      readonly status: number
      readonly body?: string
      readonly headers?: Record<string, string>
    }
  /** Takes everything and never answers. */
  | { readonly kind: 'hang' }
  /** Breaks the connection after so many bytes of the body. */
  | { readonly kind: 'reset'; readonly afterBytes: number }
  /** Lets the server do its work and breaks the connection in the middle of its answer. */
  | { readonly kind: 'truncate' }
  /** Passes on the first bytes of the server's answer and breaks the connection. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** Lets the server do its work and ends the connection, without an error, in the middle of its answer's headers. */
  | { readonly kind: 'behead' }
  /** Lets the server do its work and keeps its answer back. */
  | { readonly kind: 'swallow' }

/** Sees each request before it is passed on; `n` counts them from 0. */
export type FaultRule = (request: IncomingMessage, n: number) => Fault | undefined

/** A proxy that breaks things. */
export interface FaultProxy extends AsyncDisposable {
  readonly url: string
  /** Method and path of each request, in order. */
  readonly requests: string[]
}

/** S3's way to say that something is wrong. */
export function s3Fault(status: number, code: string, message = code): Fault {
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`
  return { kind: 'answer', status, body, headers: { 'content-type': 'application/xml' } }
}

function reset(socket: Duplex | null): void {
  if (socket !== null && 'resetAndDestroy' in socket && typeof socket.resetAndDestroy === 'function') {
    socket.resetAndDestroy()
  } else socket?.destroy()
}

function cut(answer: IncomingMessage, response: ServerResponse, afterBytes: number): void {
  let bytes = 0
  answer.on('data', (chunk: Buffer) => {
    if (bytes >= afterBytes) return
    bytes += chunk.length
    // Ended rather than reset, so that what was sent arrives.
    response.write(chunk, () => bytes >= afterBytes && response.socket?.end())
  })
}

function pass(
  upstream: URL,
  request: IncomingMessage,
  response: ServerResponse,
  fault: Fault | undefined,
): void {
  let answered = false
  const out = forward(
    {
      hostname: upstream.hostname,
      port: upstream.port,
      method: request.method,
      path: request.url,
      headers: request.headers,
    },
    (answer) => {
      answered = true
      if (fault?.kind === 'swallow') {
        answer.resume()
        return
      }
      if (fault?.kind === 'behead') {
        answer.resume()
        request.socket.end(
          `HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\ncontent-length: 0\r\nx-am`,
        )
        return
      }
      if (fault?.kind === 'truncate') {
        answer.resume()
        answer.once('end', () => {
          response.writeHead(answer.statusCode ?? 500, { 'content-length': '1000' })
          response.write('<Half', () => reset(request.socket))
        })
        return
      }
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      if (fault?.kind === 'cut') cut(answer, response, fault.afterBytes)
      else answer.pipe(response)
    },
  )
  // A server that refuses early closes on what is still being sent; its answer stands.
  out.on('error', () => {
    if (!answered) reset(request.socket)
  })
  request.once('close', () => {
    if (!request.complete) out.destroy()
  })
  if (request.headers.expect === undefined) request.pipe(out)
  else {
    out.once('continue', () => {
      response.writeContinue()
      request.pipe(out)
    })
  }
}

/** Starts a proxy in front of a server; signatures stay valid, since they are made for the proxy's address. */
export async function startFaultProxy(upstream: string, rule: FaultRule): Promise<FaultProxy> {
  const target = new URL(upstream)
  const requests: string[] = []
  const take = (request: IncomingMessage, response: ServerResponse): void => {
    const n = requests.length
    requests.push(`${request.method} ${request.url}`)
    const fault = rule(request, n)
    if (fault === undefined || ['truncate', 'behead', 'cut', 'swallow'].includes(fault.kind)) {
      pass(target, request, response, fault)
      return
    }
    if (request.headers.expect !== undefined) response.writeContinue()
    if (fault.kind === 'answer') {
      response.writeHead(fault.status, { connection: 'close', ...fault.headers }).end(fault.body)
    } else if (fault.kind === 'reset') {
      let bytes = 0
      if (fault.afterBytes === 0) reset(request.socket)
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes >= fault.afterBytes) reset(request.socket)
      })
    } else request.resume()
  }
  const server = createServer(take).on('checkContinue', take)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((closed) => server.close(closed))
    },
  }
}
