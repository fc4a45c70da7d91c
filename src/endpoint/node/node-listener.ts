import type { IncomingMessage, ServerResponse } from 'node:http'
import { HttpError } from '../http-error.js'
import { errorResponse } from '../respond.js'
import { RequestBody } from './request-body.js'
import { writeResponse } from './send-response.js'

/** Anything that answers a web-standard request. */
export type WebHandler = (request: Request) => Promise<Response>

/** A listener for `http.createServer` and for everything built on it. */
export type NodeListener = (message: IncomingMessage, response: ServerResponse) => Promise<void>

/** Options for {@link toNodeListener}. */
export interface NodeListenerOptions {
  /** Longest time that a client may leave an answer unread, in milliseconds. @default 60000 */
  readonly stallTimeoutMs?: number | undefined
  /** Whether `100 Continue` is left to this listener, as a server does that hands it its `checkContinue`. @default false */
  readonly sendsContinue?: boolean | undefined
  /** Told of bodies that could not be sent whole for a reason of the server's. @default prints a warning */
  readonly onFault?: ((error: unknown) => void) | undefined
}

/**
 * Mounts a web-standard handler in node:http, Express or Fastify. Bodies are streamed both ways as fast as the slower side
 * takes them, and a client that goes away aborts the request's signal. Never rejects.
 */
export function toNodeListener(handle: WebHandler, options: NodeListenerOptions = {}): NodeListener {
  const {
    stallTimeoutMs = 60_000,
    sendsContinue = false,
    onFault = (error) => process.emitWarning(error instanceof Error ? error : String(error)),
  } = options
  return async (message, response) => {
    const gone = new AbortController()
    response.once('close', () => {
      if (!response.writableFinished) gone.abort(new Error('the client went away'))
    })
    const body = new RequestBody(message, sendsContinue ? response : undefined)
    try {
      const request = toRequest(message, body, gone.signal)
      const answer = request === undefined ? badRequest() : await handle(request)
      await writeResponse(answer, message, response, stallTimeoutMs)
      // Before the end: Node closes the connection with it.
      await body.drain()
      await end(response)
    } catch (error) {
      // Half an answer must not look like a whole one.
      response.destroy()
      message.destroy()
      if (!gone.signal.aborted) onFault(error)
    }
  }
}

function badRequest(): Response {
  return errorResponse(new HttpError(400, 'malformed_request', 'this is no request that can be answered'))
}

function toRequest(message: IncomingMessage, body: RequestBody, signal: AbortSignal): Request | undefined {
  const { method = 'GET' } = message
  const headers = new Headers()
  for (let i = 0; i < message.rawHeaders.length; i += 2) {
    headers.append(message.rawHeaders[i] as string, message.rawHeaders[i + 1] as string)
  }
  const hasBody =
    message.headers['content-length'] !== undefined || message.headers['transfer-encoding'] !== undefined
  const withBody = hasBody && method !== 'GET' && method !== 'HEAD'
  try {
    const init = { method, headers, signal }
    return new Request(urlOf(message), withBody ? { ...init, body: body.stream, duplex: 'half' } : init)
  } catch {
    // A method or a path that the web's requests do not know, such as TRACE or *.
    return undefined
  }
}

function urlOf(message: IncomingMessage & { originalUrl?: string }): string {
  // Express takes the path it is mounted at out of `url`.
  const path = message.originalUrl ?? message.url ?? '/'
  const secure = 'encrypted' in message.socket
  const { host = '' } = message.headers
  // Put together as text: a path such as //elsewhere/ is not to be taken for a host.
  const origin = `${secure ? 'https' : 'http'}://${/^[\w.:[\]-]+$/.test(host) ? host : 'localhost'}`
  if (path.startsWith('/')) return `${origin}${path}`
  // Proxies get the whole URL; everything else is refused by its first sign.
  return path
}

function end(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) return resolve()
    response.once('close', resolve)
    response.end()
  })
}
