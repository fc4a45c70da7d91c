import { join } from 'node:path'
import {
  DirectoryBackend,
  type EndpointBackend,
  mintToken,
  type ResultsServer,
  S3Backend,
  type ServeResultsOptions,
  serveResults,
  type TokenScope,
} from '../../../src/endpoint/index.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import type { S3ServerKind } from '../../support/s3/servers.js'
import { makeTempDir } from '../../support/temp-dir.js'

/** Signs the tokens of these tests. */
export const SECRET = 'a secret of these tests, longer than 32 bytes'

/** A token that is valid for ten minutes unless told otherwise. */
export function tokenFor(
  taskId: string,
  scope: readonly TokenScope[] = ['write', 'read', 'delete'],
  { secret = SECRET, expiresInMs = 600_000 } = {},
): string {
  return mintToken({ secret, taskId, scope, expiresAt: new Date(Date.now() + expiresInMs) })
}

/** A server over a folder of its own; disposing removes both. */
export interface TestServer extends AsyncDisposable {
  readonly server: ResultsServer
  readonly url: string
  /** Where results lie. */
  readonly folder: string
  /** What the server found to be its own fault. */
  readonly faults: unknown[]
}

/** Serves a fresh folder. Everybody may do everything unless the options say otherwise. */
export async function serveFolder(options: Partial<ServeResultsOptions> = {}): Promise<TestServer> {
  const dir = await makeTempDir()
  const faults: unknown[] = []
  const place = options.backend === undefined ? { directory: dir.path } : {}
  const access = options.tokenSecrets === undefined ? ({ authenticate: 'none' } as const) : {}
  const server = await serveResults({
    ...place,
    ...access,
    onFault: (error) => faults.push(error),
    ...options,
  })
  return {
    server,
    url: server.url,
    folder: dir.path,
    faults,
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await dir[Symbol.asyncDispose]()
    },
  }
}

/** A backend with what it lies on; disposing removes all of it. */
export interface TestBackend extends AsyncDisposable {
  readonly backend: EndpointBackend
  /** The bucket of an S3 backend. */
  readonly at?: S3Location
  readonly folder: string
}

/** A kind of backend; each `open` is on fresh ground. */
export interface BackendKind {
  readonly name: string
  open(): Promise<TestBackend>
}

/** Results in a folder. */
export const inDirectory: BackendKind = {
  name: 'a directory',
  open: async () => {
    const dir = await makeTempDir()
    const backend = await DirectoryBackend.open(dir.path)
    return {
      backend,
      folder: dir.path,
      [Symbol.asyncDispose]: async () => {
        await backend.close()
        await dir[Symbol.asyncDispose]()
      },
    }
  },
}

/** Results in a bucket of its own on a server of this kind. */
export function inS3(kind: S3ServerKind): BackendKind {
  return {
    name: `S3 [${kind.name}]`,
    open: async () => {
      const dir = await makeTempDir()
      const s3 = await kind.start()
      const { url: endpoint, region, credentials } = s3
      const at = openS3Location({ bucket: await s3.createBucket(), endpoint, region, credentials })
      const backend = await S3Backend.open(at, { stagingFolder: join(dir.path, 'staging') })
      return {
        backend,
        at,
        folder: dir.path,
        [Symbol.asyncDispose]: async () => {
          await backend.close()
          at.close()
          await s3[Symbol.asyncDispose]()
          await dir[Symbol.asyncDispose]()
        },
      }
    },
  }
}
