import type { IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { readJson } from '../http/read-json.js'
import { sendJson } from '../http/reply.js'
import type { Handler } from '../http/router.js'
import type { SandboxUser } from '../jail/jail.js'
import type { RequestError } from '../request-error.js'
import type { Sandbox } from '../sandbox/sandbox.js'
import type { Sandboxes } from '../sandbox/sandboxes.js'
import { enterSandbox, userOf } from './access.js'
import { deadlineOf, EventStream, keepaliveOf, readStreamRequest } from './connect-protocol.js'

/** Used when a client does not say how often it wants a sign of life. */
const DEFAULT_KEEPALIVE_MS = 90_000

/** A call within a sandbox. */
export interface RpcCall<T> {
  readonly sandbox: Sandbox
  readonly user: SandboxUser
  readonly message: T
  readonly req: IncomingMessage
}

/** Answers a call with one message. */
export function unary<T extends z.ZodType>(
  sandboxes: Sandboxes,
  schema: T,
  answer: (call: RpcCall<z.output<T>>) => Promise<unknown>,
): Handler {
  return async ({ req, res }) => {
    const sandbox = await enterSandbox(sandboxes, req)
    const done = sandbox.requests.add(req.socket)
    try {
      const message = await readJson(req, schema)
      sendJson(res, 200, await answer({ sandbox, user: userOf(req), message, req }))
    } finally {
      done()
    }
  }
}

/** What a stream's handler gets besides the call. */
export interface StreamCall<T> extends RpcCall<T> {
  /** Says yes, which starts the stream; an error thrown before is a refusal. */
  open(keepalive: unknown): EventStream
  /** When the client will have waited long enough. */
  readonly deadlineMs: number | undefined
}

/** Answers a call with a stream, which lasts until `answer` resolves. */
export function serverStream<T extends z.ZodType>(
  sandboxes: Sandboxes,
  schema: T,
  answer: (call: StreamCall<z.output<T>>) => Promise<RequestError | undefined>,
): Handler {
  return async ({ req, res }) => {
    const sandbox = await enterSandbox(sandboxes, req)
    const done = sandbox.requests.add(req.socket)
    let stream: EventStream | undefined
    let pings: NodeJS.Timeout | undefined
    try {
      const message = await readStreamRequest(req, schema)
      const open = (keepalive: unknown) => {
        const opened = new EventStream(res)
        stream = opened
        pings = setInterval(() => void opened.send(keepalive), keepaliveOf(req) ?? DEFAULT_KEEPALIVE_MS)
        return opened
      }
      const error = await answer({
        sandbox,
        user: userOf(req),
        message,
        req,
        open,
        deadlineMs: deadlineOf(req),
      })
      stream?.end(error)
    } finally {
      clearInterval(pings)
      done()
    }
  }
}
