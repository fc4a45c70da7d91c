import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { pipeline } from 'node:stream/promises'

/**
 * Passes requests on unchanged and remembers each as `METHOD /path`.
 *
 * @param {string} target
 */
export async function startCountingProxy(target) {
  /** @type {string[]} */
  const seen = []
  const server = createServer((incoming, response) => {
    seen.push(`${incoming.method} ${incoming.url?.split('?')[0]}`)
    const outgoing = request(new URL(incoming.url ?? '/', target), {
      method: incoming.method,
      // Host included: it is signed.
      headers: incoming.headers,
      agent: false,
    })
    const abort = () => outgoing.destroy()
    response.once('close', abort)
    outgoing.once('response', (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      response.flushHeaders()
      // Either side may go away in the middle; the other then sees just that.
      pipeline(answer, response).catch(() => response.destroy())
    })
    pipeline(incoming, outgoing).catch(() => response.destroy())
  })
  server.requestTimeout = 0
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
  return {
    url: `http://127.0.0.1:${address.port}`,
    /** Requests since the last call. */
    take: () => seen.splice(0),
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
