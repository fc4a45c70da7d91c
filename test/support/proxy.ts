import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** What becomes of one connection. */
export type ConnectionFault =
  | { readonly kind: 'pass' }
  /** Reset after so many bytes towards the server, or from it. */
  | { readonly kind: 'reset'; readonly direction: 'up' | 'down'; readonly afterBytes: number }
  /** Ended in good order after so many bytes from the server. */
  | { readonly kind: 'truncate'; readonly afterBytes: number }
  /** Each piece waits before it is passed on. */
  | { readonly kind: 'slow'; readonly pieceMs: number }
  /** Taken, and never answered; reset after a while. */
  | { readonly kind: 'hang'; readonly forMs: number }

/** A proxy for TCP whose connections can be broken. */
export interface TcpProxy extends AsyncDisposable {
  readonly port: number
  /** Where connections go from now on. */
  target: { readonly host: string; readonly port: number }
  /** Connections that are or were there, refused ones too. */
  readonly taken: number
  /** Those of them that are there. */
  readonly open: number
  /** Resets all connections and, until {@link restore}, each new one. */
  cut(): void
  restore(): void
}

/** Decides what becomes of the connection with this number, counted from 0. */
export type ConnectionRule = (number: number) => ConnectionFault

/** Told of a fault at the moment at which it is felt, once per connection. */
export type OnFault = (fault: ConnectionFault) => void

/** Starts a proxy on loopback. Signatures made for its address stay valid, since it passes bytes on as they are. */
export async function startTcpProxy(
  target: TcpProxy['target'],
  rule: ConnectionRule,
  onFault: OnFault = () => {},
): Promise<TcpProxy> {
  const open = new Set<Socket>()
  const clients = new Set<Socket>()
  let connections = 0
  let taken = 0
  let isCut = false
  const keep = (socket: Socket): void => {
    open.add(socket)
    socket.on('error', () => {
      // `close` follows and is what ends the other side.
    })
    socket.once('close', () => open.delete(socket))
  }
  const server = createServer({ allowHalfOpen: true }, (client) => {
    keep(client)
    taken++
    clients.add(client)
    client.once('close', () => clients.delete(client))
    if (isCut) {
      client.resetAndDestroy()
      return
    }
    const fault = rule(connections++)
    if (fault.kind === 'hang') {
      client.resume()
      client.once('data', () => onFault(fault))
      const timer = setTimeout(() => client.resetAndDestroy(), fault.forMs)
      client.once('close', () => clearTimeout(timer))
      return
    }
    const upstream = connect({ ...proxy.target, allowHalfOpen: true })
    keep(upstream)
    client.once('close', () => upstream.destroy())
    // A server that was killed resets its connections, and so does its proxy.
    upstream.once('close', () => client.resetAndDestroy())
    let isFelt = false
    const felt = (): void => {
      if (!isFelt) onFault(fault)
      isFelt = true
    }
    void pass(client, upstream, fault, 'up', felt)
    void pass(upstream, client, fault, 'down', felt)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const proxy: TcpProxy = {
    port: (server.address() as AddressInfo).port,
    target,
    get taken() {
      return taken
    },
    get open() {
      return clients.size
    },
    cut: () => {
      isCut = true
      for (const socket of open) socket.resetAndDestroy()
    },
    restore: () => {
      isCut = false
    },
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close')
      server.close()
      for (const socket of open) socket.destroy()
      await closed
    },
  }
  return proxy
}

async function pass(
  from: Socket,
  to: Socket,
  fault: ConnectionFault,
  direction: 'up' | 'down',
  felt: () => void,
): Promise<void> {
  let passed = 0
  const limit =
    fault.kind === 'reset' && fault.direction === direction
      ? fault.afterBytes
      : fault.kind === 'truncate' && direction === 'down'
        ? fault.afterBytes
        : Number.POSITIVE_INFINITY
  try {
    for await (const chunk of from as AsyncIterable<Buffer>) {
      if (fault.kind === 'slow') {
        felt()
        await delay(fault.pieceMs)
      }
      const piece = chunk.subarray(0, Math.max(0, limit - passed))
      passed += piece.length
      if (piece.length > 0 && !to.write(piece)) await Promise.race([once(to, 'drain'), once(to, 'close')])
      if (piece.length === chunk.length) continue
      felt()
      if (fault.kind === 'truncate') to.end(() => to.destroy())
      else to.resetAndDestroy()
      return
    }
    to.end()
  } catch {
    // Either side broke off, which is what this is for.
    to.destroy()
  }
}
