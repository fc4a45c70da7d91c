import { once } from 'node:events'
import { connect } from 'node:net'

/** Sends bytes as they are and collects what comes back until the server closes; `end` says that no more comes. */
export async function rawRequest(
  url: string,
  send: string | Buffer | AsyncIterable<Buffer>,
  { end = false }: { readonly end?: boolean } = {},
): Promise<string> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  // A server that closes while more is sent resets the connection; what it said before counts.
  socket.on('error', () => undefined)
  const closed = new Promise((resolve) => socket.once('close', resolve))
  if (typeof send === 'string' || Buffer.isBuffer(send)) socket.write(send)
  else {
    for await (const chunk of send) {
      if (socket.destroyed) break
      if (socket.write(chunk)) continue
      // A reset while waiting is followed by the close.
      await Promise.race([once(socket, 'drain').catch(() => closed), closed])
    }
  }
  if (end) socket.end()
  await closed
  return Buffer.concat(chunks).toString('latin1')
}
