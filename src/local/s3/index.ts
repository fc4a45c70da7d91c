import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ConductorError } from '../../errors.js'
import type { LocalS3Credential } from './auth/credentials.js'
import type { S3Operation } from './operations/index.js'
import { createS3Server } from './server.js'
import { Store } from './store/store.js'

export type { LocalS3Allow, LocalS3Credential, S3Action } from './auth/credentials.js'
export type { S3Operation } from './operations/index.js'

/** How to start a local S3 server. */
export interface LocalS3Options {
  /** @default a free one */
  readonly port?: number | undefined
  /** The address to listen on; anything but loopback is the caller's decision. @default '127.0.0.1' */
  readonly host?: string | undefined
  /** Keeps the objects; one server at a time. @default a temporary folder, removed on close */
  readonly dataDir?: string | undefined
  /** Signatures must be for this region. @default 'us-east-1' */
  readonly region?: string | undefined
  /** Created at start unless they are there. */
  readonly buckets?: readonly string[] | undefined
  /** The key pairs the server knows; the first is the one it hands out. @default one random pair */
  readonly credentials?: readonly LocalS3Credential[] | undefined
  /** The server's clock, in milliseconds since the epoch. @default Date.now */
  readonly now?: (() => number) | undefined
  /** Told of failures inside the server, which clients see as `InternalError`. @default prints a warning */
  readonly onFault?: ((error: unknown) => void) | undefined
}

/** A running local S3 server. */
export interface LocalS3 extends AsyncDisposable {
  /** The endpoint, e.g. `http://127.0.0.1:4566`. */
  readonly url: string
  readonly port: number
  readonly region: string
  readonly credentials: LocalS3Credential
  /** What the AWS tools and SDKs need in their environment. */
  readonly env: Readonly<Record<string, string>>
  /** How many requests came in, refused ones included: all, or those of one operation. */
  requestCount(operation?: S3Operation | 'Unknown'): number
  /** Stops at once, also for requests under way. What was acknowledged stays in `dataDir`. */
  close(): Promise<void>
}

/**
 * Starts an S3 server for laptops and tests. It checks signatures, policies and checksums as strictly as S3 does and
 * keeps what it acknowledged, but it is a development tool: one process, no TLS, no replication.
 */
export async function startLocalS3(options: LocalS3Options = {}): Promise<LocalS3> {
  const { host = '127.0.0.1', region = 'us-east-1', now = Date.now } = options
  const credentials = options.credentials ?? [randomCredential()]
  const [primary] = credentials
  if (primary === undefined)
    throw new ConductorError('INVALID_OPTION', 'credentials: needs at least one key pair.')
  const folder = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'local-s3-')))
  const counts = new Map<S3Operation | 'Unknown', number>()
  const store = await Store.open(folder)
  const { http: server, idle } = createS3Server({
    store,
    region,
    credentials,
    now,
    onRequest: (operation) => counts.set(operation, (counts.get(operation) ?? 0) + 1),
    onFault:
      options.onFault ?? ((error) => process.emitWarning(error instanceof Error ? error : String(error))),
  })

  const release = async () => {
    await store.close()
    if (options.dataDir === undefined) await rm(folder, { recursive: true, force: true })
  }
  try {
    for (const bucket of options.buckets ?? []) if (!store.has(bucket)) await store.create(bucket, now())
    server.listen(options.port ?? 0, host)
    await once(server, 'listening')
  } catch (error) {
    await release()
    throw error
  }

  const { port } = server.address() as AddressInfo
  const url = `http://${urlHost(host)}:${port}`
  let closing: Promise<void> | undefined
  const close = () => {
    closing ??= (async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
      await idle()
      await release()
    })()
    return closing
  }
  return {
    url,
    port,
    region,
    credentials: primary,
    env: environmentOf(url, region, primary),
    requestCount: (operation) =>
      operation === undefined
        ? [...counts.values()].reduce((sum, count) => sum + count, 0)
        : (counts.get(operation) ?? 0),
    close,
    [Symbol.asyncDispose]: close,
  }
}

function randomCredential(): LocalS3Credential {
  return {
    accessKeyId: `LOCAL${randomBytes(8).toString('hex').toUpperCase()}`,
    secretAccessKey: randomBytes(30).toString('base64url'),
  }
}

function environmentOf(url: string, region: string, credential: LocalS3Credential): Record<string, string> {
  return {
    AWS_ENDPOINT_URL_S3: url,
    AWS_REGION: region,
    AWS_DEFAULT_REGION: region,
    AWS_ACCESS_KEY_ID: credential.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credential.secretAccessKey,
    ...(credential.sessionToken === undefined ? {} : { AWS_SESSION_TOKEN: credential.sessionToken }),
  }
}

/** Where a client on this machine reaches the server. */
function urlHost(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  if (host === '::') return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}
