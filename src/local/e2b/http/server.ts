import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { RequestError } from '../request-error.js'
import { sendJson } from './reply.js'
import type { Refuse, Router } from './router.js'

/** Longer than any client keeps an idle connection, so that none is closed under a request that has just been sent. */
const KEEP_ALIVE_MS = 600_000

/** E2B's plain way to say no. */
export const refuseWithJson: Refuse = (res, error) => {
  sendJson(res, error.status, { code: error.status, message: error.message })
}

/** Starts listening; `onError` hears of failures that are nobody's wrong request. */
export async function listen(
  router: Router,
  { host, port, onError }: { host: string; port: number; onError: (error: unknown) => void },
): Promise<Server> {
  const server = createServer({ requestTimeout: 0, keepAliveTimeout: KEEP_ALIVE_MS }, (req, res) => {
    void serve(router, req, res, onError)
  })
  server.listen(port, host)
  await once(server, 'listening')
  return server
}

/** The address to reach a listening server at. */
export function urlOf(server: Server): string {
  const { address, port, family } = server.address() as AddressInfo
  const host = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '[::1]' : address
  return `http://${family === 'IPv6' && !host.startsWith('[') ? `[${host}]` : host}:${port}`
}

/** Stops listening and drops every connection. */
export async function stop(server: Server): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  server.closeAllConnections()
  await closed
}

async function serve(
  router: Router,
  req: IncomingMessage,
  res: ServerResponse,
  onError: (error: unknown) => void,
): Promise<void> {
  let refuse = refuseWithJson
  try {
    const target = req.url ?? '/'
    const mark = target.indexOf('?')
    const path = mark < 0 ? target : target.slice(0, mark)
    const query = new URLSearchParams(mark < 0 ? '' : target.slice(mark + 1))
    const found = router.find(req.method ?? 'GET', path)
    if (found === undefined) throw new RequestError('not_found', `no such route: ${req.method} ${path}`)
    refuse = found.route.refuse
    await found.route.handler({ req, res, query, params: found.params })
  } catch (error) {
    // Nobody is there to hear it any more. A request whose body was given up has no socket, whatever its type says; its answer has.
    if (res.destroyed || res.socket?.destroyed !== false) return
    if (!(error instanceof RequestError)) onError(error)
    if (res.headersSent) {
      // Half an answer must not look like a whole one.
      res.destroy()
      return
    }
    const known =
      error instanceof RequestError ? error : new RequestError('internal', 'internal error of the local E2B')
    // What is left of the body would be taken for the next request.
    if (!req.complete) res.shouldKeepAlive = false
    refuse(res, known)
    if (!req.complete) req.resume()
  }
}
