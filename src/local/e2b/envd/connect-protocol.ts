import type { IncomingMessage, ServerResponse } from 'node:http'
import type { z } from 'zod'
import { parseJson, readBody } from '../http/read-json.js'
import { sendJson } from '../http/reply.js'
import type { Refuse } from '../http/router.js'
import { RequestError } from '../request-error.js'
import { refuseAsProxy } from './refuse-as-proxy.js'

/**
 * The part of the Connect protocol that E2B's SDK speaks: JSON, uncompressed, unary and server streaming over HTTP/1.1.
 * See https://connectrpc.com/docs/protocol/.
 */
const END_OF_STREAM = 0x02
const HEADER_BYTES = 5

/** How a unary call is refused. */
export const refuseUnary: Refuse = (res, error) => {
  if (error.code === 'unavailable') return refuseAsProxy(res, error)
  sendJson(res, error.status, { code: error.connectCode, message: error.message })
}

/** A stream says no within a successful HTTP answer, except that a missing sandbox is the proxy's to report. */
export const refuseStream: Refuse = (res, error) => {
  if (error.code === 'unavailable') return refuseAsProxy(res, error)
  new EventStream(res).end(error)
}

/** Reads the one message that opens a server stream. */
export async function readStreamRequest<T extends z.ZodType>(
  req: IncomingMessage,
  schema: T,
): Promise<z.output<T>> {
  const body = await readBody(req)
  const flags = body[0]
  if (body.length < HEADER_BYTES || flags === undefined) {
    throw new RequestError('invalid_argument', 'the request has no message')
  }
  if (flags !== 0) throw new RequestError('unimplemented', 'compressed messages are not supported')
  const lengthBytes = body.readUInt32BE(1)
  if (body.length !== HEADER_BYTES + lengthBytes) {
    throw new RequestError('invalid_argument', 'the message is not as long as it says')
  }
  return parseJson(body.subarray(HEADER_BYTES).toString('utf8'), schema)
}

/** How long the client waits for the whole call, in milliseconds; undefined when as long as it takes. */
export function deadlineOf(req: IncomingMessage): number | undefined {
  return positiveHeader(req, 'connect-timeout-ms')
}

/** How often the client wants a sign of life, in milliseconds. */
export function keepaliveOf(req: IncomingMessage): number | undefined {
  const seconds = positiveHeader(req, 'keepalive-ping-interval')
  return seconds === undefined ? undefined : seconds * 1000
}

function positiveHeader(req: IncomingMessage, name: string): number | undefined {
  const value = Number(req.headers[name])
  return Number.isFinite(value) && value > 0 ? value : undefined
}

/** Messages to a client, as many as there will be, and how it ended. */
export class EventStream {
  readonly #res: ServerResponse
  /** Aborted when the client has gone or the stream has ended. */
  readonly closed: AbortSignal

  constructor(res: ServerResponse) {
    this.#res = res
    const closed = new AbortController()
    this.closed = closed.signal
    res.once('close', () => closed.abort())
    if (res.destroyed) closed.abort()
    res.writeHead(200, { 'content-type': 'application/connect+json' })
    res.flushHeaders()
  }

  /** Sends a message; a promise resolves when the client has caught up, or gone. */
  send(message: unknown): Promise<void> | undefined {
    if (this.closed.aborted || this.#res.writableEnded) return undefined
    if (this.#res.write(frame(0, message))) return undefined
    return new Promise((resolve) => {
      const done = () => {
        this.#res.off('drain', done)
        this.closed.removeEventListener('abort', done)
        resolve()
      }
      this.#res.once('drain', done)
      this.closed.addEventListener('abort', done, { once: true })
    })
  }

  end(error?: RequestError): void {
    if (this.closed.aborted || this.#res.writableEnded) return
    const last = error === undefined ? {} : { error: { code: error.connectCode, message: error.message } }
    this.#res.end(frame(END_OF_STREAM, last))
  }
}

function frame(flags: number, message: unknown): Buffer {
  const json = Buffer.from(JSON.stringify(message))
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt8(flags, 0)
  header.writeUInt32BE(json.length, 1)
  return Buffer.concat([header, json])
}
