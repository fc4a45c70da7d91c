import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'

/** A form that was posted, its file as text. */
export type PostedForm = Readonly<Record<string, string>>

/** An endpoint that knows no more than the guide says: it takes the POST and looks at nothing. */
export interface PlainEndpoint extends AsyncDisposable {
  readonly url: string
  /** In the order they came. */
  readonly forms: readonly PostedForm[]
}

/** Starts an endpoint that answers everything with this status, and takes forms when that is 200. */
export async function startPlainEndpoint(status = 200): Promise<PlainEndpoint> {
  const forms: PostedForm[] = []
  const server = createServer((request, response) => {
    const answer = async (): Promise<void> => {
      if (request.method !== 'POST') {
        response.writeHead(405, { allow: 'POST' }).end()
        return
      }
      if (status === 200) forms.push(await readForm(request))
      else request.resume()
      response.writeHead(status).end()
    }
    answer().catch((error: unknown) => response.writeHead(400).end(String(error)))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/results`,
    forms,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((closed) => server.close(closed))
    },
  }
}

async function readForm(request: IncomingMessage): Promise<PostedForm> {
  const headers = { 'content-type': request.headers['content-type'] ?? '' }
  const form = await new Response(await buffer(request), { headers }).formData()
  const fields: Record<string, string> = {}
  for (const [name, value] of form) fields[name] = typeof value === 'string' ? value : await value.text()
  return fields
}
