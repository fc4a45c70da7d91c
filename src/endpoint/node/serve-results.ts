import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { z } from 'zod'
import { checkOptions } from '../../check-options.js'
import { openS3Location, type S3Options } from '../../stores/s3/s3-location.js'
import { DirectoryBackend } from '../backends/directory-backend.js'
import type { EndpointBackend } from '../backends/endpoint-backend.js'
import { S3Backend } from '../backends/s3-backend.js'
import { createResultsHandler } from '../handler.js'
import type { ResultsHandlerOptions } from '../options.js'
import { toNodeListener } from './node-listener.js'

/** How to serve a results endpoint from this process. One of `directory`, `s3` and `backend` says where results are kept. */
export interface ServeResultsOptions extends Omit<ResultsHandlerOptions, 'backend'> {
  /** Keeps results in this folder, in the layout of the spool. */
  readonly directory?: string | undefined
  /** Keeps results in S3. */
  readonly s3?: S3Options | undefined
  /** Keeps results wherever the caller likes; the caller closes it. */
  readonly backend?: EndpointBackend | undefined
  /** @default a free one */
  readonly port?: number | undefined
  /** The address to listen on. There is no TLS here: put a proxy in front of anything but loopback. @default '127.0.0.1' */
  readonly host?: string | undefined
}

/** A running results endpoint. */
export interface ResultsServer extends AsyncDisposable {
  /** What belongs in `WORKER_RESULTS_ENDPOINT`. */
  readonly url: string
  readonly port: number
  /** Takes no more requests and lets those under way end, for ten seconds at most. */
  close(): Promise<void>
}

/** How long requests under way may take to end once the server closes. */
const GRACE_MS = 10_000

const placeSchema = z
  .object({
    directory: z.string().min(1).optional(),
    s3: z.custom<S3Options>((value) => typeof value === 'object' && value !== null).optional(),
    backend: z.custom<EndpointBackend>((value) => typeof value === 'object' && value !== null).optional(),
    port: z.number().int().min(0).max(65_535).optional(),
    host: z.string().min(1).optional(),
  })
  .refine(
    ({ directory, s3, backend }) =>
      [directory, s3, backend].filter((place) => place !== undefined).length === 1,
    'say one of directory, s3 and backend',
  )

/** Serves a results endpoint over HTTP, on loopback unless told otherwise. */
export async function serveResults(options: ServeResultsOptions): Promise<ResultsServer> {
  checkOptions('serveResults', placeSchema, options)
  const { directory, s3, backend: given, port = 0, host = '127.0.0.1', ...rest } = options
  const { backend, release } = await openBackend({ directory, s3, backend: given })
  try {
    const handler = createResultsHandler({ ...rest, backend })
    const active = new Set<Promise<void>>()
    const listener = toNodeListener(handler, {
      sendsContinue: true,
      onFault: rest.onFault,
      stallTimeoutMs: rest.limits?.stallTimeoutMs,
    })
    const server = createServer({ highWaterMark: 1 << 20, keepAliveTimeout: 65_000 }, (message, response) => {
      const work = listener(message, response)
      active.add(work)
      void work.finally(() => active.delete(work))
    })
    // Told to go on only when the body is read: what is refused anyway is then never sent.
    server.on('checkContinue', (message, response) => server.emit('request', message, response))
    // Large uploads over slow lines are legitimate; those that stand still are ended by the handler.
    server.requestTimeout = 0
    server.listen(port, host)
    await once(server, 'listening')
    const { port: bound } = server.address() as AddressInfo
    let closing: Promise<void> | undefined
    const close = (): Promise<void> => {
      closing ??= (async () => {
        const closed = once(server, 'close')
        server.close()
        server.closeIdleConnections()
        const timer = setTimeout(() => server.closeAllConnections(), GRACE_MS)
        await Promise.all(active)
        server.closeAllConnections()
        await closed
        clearTimeout(timer)
        await release()
      })()
      return closing
    }
    const base = (rest.basePath ?? '/').replace(/\/+$/, '')
    const url = `http://${urlHost(host)}:${bound}${base}`
    return { url, port: bound, close, [Symbol.asyncDispose]: close }
  } catch (error) {
    await release()
    throw error
  }
}

async function openBackend({
  directory,
  s3,
  backend,
}: Pick<ServeResultsOptions, 'directory' | 's3' | 'backend'>): Promise<{
  backend: EndpointBackend
  release(): Promise<void>
}> {
  if (backend !== undefined) return { backend, release: async () => undefined }
  if (directory !== undefined) {
    const opened = await DirectoryBackend.open(directory)
    return { backend: opened, release: () => opened.close() }
  }
  const location = openS3Location(s3 as S3Options)
  try {
    const opened = await S3Backend.open(location)
    const release = async (): Promise<void> => {
      await opened.close()
      location.close()
    }
    return { backend: opened, release }
  } catch (error) {
    location.close()
    throw error
  }
}

/** Where a client on this machine reaches the server. */
function urlHost(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  if (host === '::') return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}
