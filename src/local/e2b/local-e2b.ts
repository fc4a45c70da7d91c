import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { withApiKey } from './control/authorize.js'
import { sandboxesApi } from './control/sandboxes-api.js'
import { unsupportedApi } from './control/unsupported-api.js'
import { takeDataFolder } from './data-folder.js'
import { refuseStream, refuseUnary } from './envd/connect-protocol.js'
import { filesApi } from './envd/files-api.js'
import { filesystemService } from './envd/filesystem-service.js'
import { processService } from './envd/process-service.js'
import { refuseAsProxy } from './envd/refuse-as-proxy.js'
import { Router } from './http/router.js'
import { listen, refuseWithJson, stop, urlOf } from './http/server.js'
import { chooseIsolation } from './jail/choose-isolation.js'
import { Pipes } from './jail/pipes.js'
import { Sandboxes } from './sandbox/sandboxes.js'
import { refuseVolumeContent, volumeContentApi } from './volumes/volume-content-api.js'
import { VolumeStore } from './volumes/volume-store.js'
import { volumesApi } from './volumes/volumes-api.js'

/** How to run a local E2B. */
export interface LocalE2bOptions {
  /** @default 0, a free one */
  readonly port?: number | undefined
  /** Address to listen on; whoever reaches it and has the key can run commands as this user. @default 127.0.0.1 */
  readonly host?: string | undefined
  /** Where sandboxes and volumes lie. Volumes are kept in it and found again. @default a new temporary folder, removed by `close()` */
  readonly dataDir?: string | undefined
  /** `auto` takes namespaces where they are to be had. @default auto */
  readonly isolation?: 'auto' | 'namespaces' | 'plain' | undefined
  /** Hears what somebody should know, one line each. @default lines on stderr */
  readonly onNotice?: ((line: string) => void) | undefined
}

/** A running local E2B: a development tool that the unmodified `e2b` package takes for the real one. */
export interface LocalE2b extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** The variables with which the `e2b` package finds this server. */
  readonly env: Record<string, string>
  readonly isolation: 'namespaces' | 'plain'
  /** Ends every sandbox with all its processes, then the server. */
  close(): Promise<void>
}

/** Starts a local E2B on this machine. Rejects when the address is taken, or the isolation asked for is not to be had. */
export async function startLocalE2b(options: LocalE2bOptions = {}): Promise<LocalE2b> {
  const { port = 0, host = '127.0.0.1', isolation = 'auto' } = options
  const onNotice = options.onNotice ?? ((line) => process.stderr.write(`${line}\n`))
  const data = await takeDataFolder(options.dataDir)
  try {
    const maker = await chooseIsolation(isolation, data.path, new Pipes(join(data.path, 'pipes')), onNotice)
    const sandboxes = new Sandboxes(maker, join(data.path, 'sandboxes'), onNotice)
    const volumes = await VolumeStore.open(join(data.path, 'volumes'))
    const apiKey = `e2b_${randomBytes(20).toString('hex')}`
    const server = await listen(routes(sandboxes, volumes, apiKey), {
      host,
      port,
      onError: (error) => onNotice(`local E2B: ${error instanceof Error ? error.stack : String(error)}`),
    })
    const url = urlOf(server)
    const close = closeOnce(async () => {
      await sandboxes.close()
      await stop(server)
      await data.release()
    })
    return {
      url,
      port: Number(new URL(url).port),
      env: {
        E2B_API_URL: url,
        E2B_SANDBOX_URL: url,
        E2B_VOLUME_API_URL: url,
        E2B_API_KEY: apiKey,
      },
      isolation: maker.isolation,
      close,
      [Symbol.asyncDispose]: close,
    }
  } catch (error) {
    await data.release()
    throw error
  }
}

function routes(sandboxes: Sandboxes, volumes: VolumeStore, apiKey: string): Router {
  const router = new Router()
  router.add(withApiKey(apiKey, sandboxesApi(sandboxes, volumes)), refuseWithJson)
  router.add(withApiKey(apiKey, volumesApi(volumes)), refuseWithJson)
  router.add(withApiKey(apiKey, unsupportedApi()), refuseWithJson)
  router.add(volumeContentApi(volumes), refuseVolumeContent)
  router.add(filesApi(sandboxes), refuseAsProxy)
  for (const service of [processService(sandboxes), filesystemService(sandboxes)]) {
    router.add(service.unary, refuseUnary)
    router.add(service.streams, refuseStream)
  }
  return router
}

function closeOnce(close: () => Promise<void>): () => Promise<void> {
  let closing: Promise<void> | undefined
  return () => {
    closing ??= close()
    return closing
  }
}
