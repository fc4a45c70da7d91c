import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'

/** An S3 server's address at which manifests are not taken until they are let. */
export interface HeldManifests extends AsyncDisposable {
  readonly url: string
  /** Resolves once somebody asks to write one. */
  readonly asked: Promise<void>
  /** Lets them all through from now on. */
  release(): void
}

/** Starts a proxy before an S3 server. Signatures made for its address stay valid. */
export async function holdManifests(s3Url: string): Promise<HeldManifests> {
  const { hostname, port } = new URL(s3Url)
  const events = new EventTarget()
  const asked = new Promise<void>((resolve) => events.addEventListener('asked', () => resolve()))
  const released = new Promise<void>((resolve) => events.addEventListener('released', () => resolve()))
  const server = createServer((incoming, answer) => {
    const { url = '', method, headers } = incoming
    const isManifest = method === 'PUT' && /\/\.tasks\/[^/]*\.json(\?|$)/.test(url)
    if (isManifest) events.dispatchEvent(new Event('asked'))
    const pass = (): void => {
      const outgoing = request({ hostname, port, path: url, method, headers }, (from) => {
        answer.writeHead(from.statusCode ?? 502, from.headers)
        from.pipe(answer)
      })
      outgoing.once('error', () => answer.destroy())
      incoming.pipe(outgoing)
    }
    if (isManifest) void released.then(pass)
    else pass()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    release: () => void events.dispatchEvent(new Event('released')),
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
