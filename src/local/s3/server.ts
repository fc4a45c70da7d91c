import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AuthSettings, authenticate } from './auth/authenticate.js'
import { authorise } from './auth/credentials.js'
import { S3Error } from './errors.js'
import { findOperation, operations, type S3Operation } from './operations/index.js'
import { postObject } from './operations/post-object.js'
import { parseRequest, type S3Request } from './request.js'
import type { Store } from './store/store.js'
import { renderErrorXml } from './xml.js'

// How much of a refused body is read so that the client gets to the answer.
const drainLimitBytes = 64 * 2 ** 20

/** What the HTTP server serves, and who may use it. */
export interface ServerSettings extends AuthSettings {
  readonly store: Store
  /** Told of every request, also of one that is refused later. */
  readonly onRequest: (operation: S3Operation | 'Unknown') => void
  /** Told of failures that are the server's own. */
  readonly onFault: (error: unknown) => void
}

/** An HTTP server, not yet listening. */
export interface S3HttpServer {
  readonly http: Server
  /** Resolves when no request is being worked on; for use once no more can come. */
  idle(): Promise<void>
}

/** Makes the HTTP server; the caller listens and closes. */
export function createS3Server(settings: ServerSettings): S3HttpServer {
  const active = new Set<Promise<void>>()
  const serve = (message: IncomingMessage, response: ServerResponse, expectsContinue: boolean) => {
    const body = readBody(message, response, expectsContinue)
    // What a handler throws is answered inside; anything left is a fault of this file.
    const work = handle(message, response, body, settings).catch(settings.onFault)
    active.add(work)
    void work.finally(() => active.delete(work))
  }
  const server = createServer({ highWaterMark: 1 << 20, maxHeaderSize: 32_768, keepAliveTimeout: 65_000 })
  // Slow uploads are legitimate.
  server.requestTimeout = 0
  server.on('request', (message, response) => serve(message, response, false))
  server.on('checkContinue', (message, response) => serve(message, response, true))
  return {
    http: server,
    idle: async () => {
      await Promise.all(active)
    },
  }
}

async function handle(
  message: IncomingMessage,
  response: ServerResponse,
  body: AsyncIterable<Buffer>,
  settings: ServerSettings,
): Promise<void> {
  let request: S3Request | undefined
  try {
    request = parseRequest(message, body)
    response.setHeader('x-amz-request-id', request.id)
    response.setHeader('server', 'stu-conductor-local-s3')
    await perform(request, response, settings)
  } catch (error) {
    if (message.destroyed && !message.complete) return
    if (response.headersSent) {
      // Half an answer must not look like a whole one.
      if (!response.writableEnded) response.destroy()
      if (!(error instanceof S3Error) && !isClientGone(error)) settings.onFault(error)
      return
    }
    if (!(error instanceof S3Error)) settings.onFault(error)
    writeError(request, message.method, response, error)
    // Closing a connection with unread data resets it, and the client would not see the answer. The answer is ended
    // only afterwards, because Node no longer tells of a lost connection once it is.
    await drain(message, body)
    response.end(() => {
      if (!message.complete) message.destroy()
    })
  }
}

async function perform(
  request: S3Request,
  response: ServerResponse,
  settings: ServerSettings,
): Promise<void> {
  const { store, region, now } = settings
  const name = countOperation(request, settings)
  if (name === 'PostObject') return postObject({ request, response, store, region, now }, settings)
  const identity = await authenticate(request, settings)
  const { action, handle } = operations[name]
  if (action !== undefined) {
    const path = request.key ?? request.query.get('prefix')
    authorise(identity.credential, { action, bucket: request.bucket, path })
  }
  await handle({ request, response, identity, store, region, now })
}

function countOperation(request: S3Request, { onRequest }: ServerSettings): S3Operation {
  try {
    const name = findOperation(request)
    onRequest(name)
    return name
  } catch (error) {
    onRequest('Unknown')
    throw error
  }
}

/** The body of a request, read on demand. It has no `return`, so that giving up early leaves the rest readable. */
function readBody(
  message: IncomingMessage,
  response: ServerResponse,
  expectsContinue: boolean,
): AsyncIterable<Buffer> {
  const iterator: AsyncIterator<Buffer> = message.iterator({ destroyOnReturn: false })
  let awaited = expectsContinue
  return {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        if (awaited) response.writeContinue()
        awaited = false
        return iterator.next()
      },
    }),
  }
}

/** Reads on until the end of the request, its connection or our patience. */
async function drain(message: IncomingMessage, body: AsyncIterable<Buffer>): Promise<void> {
  // A client that still waits to be told to go on sends nothing more.
  if (message.complete || (message.headers.expect !== undefined && !message.readableDidRead)) return
  let seenBytes = 0
  try {
    for await (const chunk of body) {
      seenBytes += chunk.length
      if (seenBytes > drainLimitBytes) return
    }
  } catch {
    // The client went away; it has its answer or does not want it.
  }
}

function writeError(
  request: S3Request | undefined,
  method: string | undefined,
  response: ServerResponse,
  cause: unknown,
): void {
  const error = cause instanceof S3Error ? cause : new S3Error('InternalError', { cause })
  const xml = renderErrorXml([
    ['Code', error.code],
    ['Message', error.message],
    ...Object.entries(error.details),
    ['Resource', request?.canonicalPath],
    ['RequestId', request?.id],
    ['HostId', 'local'],
  ])
  response.writeHead(error.status, {
    ...error.headers,
    'content-type': 'application/xml',
    'content-length': Buffer.byteLength(xml),
  })
  if (method === 'HEAD') response.flushHeaders()
  else response.write(xml)
}

function isClientGone(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code
  return code === 'ERR_STREAM_PREMATURE_CLOSE' || code === 'ECONNRESET' || code === 'EPIPE'
}
