import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Busboy } from '@fastify/busboy'

/** A form as it arrived. */
export interface ReceivedForm {
  readonly fields: Readonly<Record<string, string>>
  readonly file: Buffer
  readonly fileName: string
  readonly contentType: string
  readonly authorization: string | undefined
}

/** A server of the kind that the guide asks for: it answers the POST and nothing else. */
export interface HttpReceiver extends AsyncDisposable {
  readonly url: string
  /** By key; a key posted twice keeps the last. */
  readonly forms: Map<string, ReceivedForm>
  /** Keys in the order they came, with repetitions. */
  readonly posts: string[]
}

async function readForm(request: IncomingMessage): Promise<ReceivedForm> {
  const fields: Record<string, string> = {}
  const chunks: Buffer[] = []
  let fileName = ''
  let contentType = ''
  const parser = new Busboy({
    headers: { ...request.headers, 'content-type': request.headers['content-type'] ?? '' },
    limits: { fieldSize: 16 << 20 },
  })
  parser.on('field', (name, value) => {
    fields[name] = value
  })
  parser.on('file', (_name, stream, name, _encoding, type) => {
    fileName = name
    contentType = type
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  })
  request.pipe(parser)
  await once(parser, 'finish')
  const file = Buffer.concat(chunks)
  return { fields, file, fileName, contentType, authorization: request.headers.authorization }
}

/** Starts a receiver; with a token it refuses everybody else. */
export async function startHttpReceiver(token?: string): Promise<HttpReceiver> {
  const forms = new Map<string, ReceivedForm>()
  const posts: string[] = []
  const server = createServer((request, response) => {
    const answer = async (): Promise<void> => {
      if (request.method !== 'POST') {
        response.writeHead(405).end()
        return
      }
      if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) {
        request.resume()
        response.writeHead(401).end('who are you?')
        return
      }
      const form = await readForm(request)
      const key = form.fields.key ?? ''
      if (createHash('sha256').update(form.file).digest('hex') !== form.fields.sha256) {
        response.writeHead(400).end('digest does not match')
        return
      }
      posts.push(key)
      forms.set(key, form)
      response.writeHead(201).end()
    }
    answer().catch(() => response.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/results`,
    forms,
    posts,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((closed) => server.close(closed))
    },
  }
}
