import type { IncomingMessage } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { isConductorError } from '../../errors.js'
import type { Grant, GrantHttp } from '../../protocol/grant.js'
import { assertKey } from '../../protocol/key.js'
import type { Copy } from '../copy.js'
import { describeError } from '../fs-error.js'
import type { Settings } from '../settings.js'
import { loadGrant } from './grant-file.js'
import { type S3Reader, s3Reader } from './s3-reader.js'

/** The remote places that the environment and the task's grant can be read from; a policy alone only writes. */
export async function* remoteCopies(settings: Settings, key: string): AsyncGenerator<Copy> {
  const { taskId } = assertKey(key)
  // Read only where the environment does not say all.
  const grant = (): Grant | undefined => loadGrant(settings.env, taskId, settings.warn)
  const places = [
    async () => s3Copy(await s3Reader(settings, key, taskId, grant)),
    () => httpCopy(settings, key, settings.env.http ?? grant()?.http),
  ]
  for (const open of places) {
    try {
      const copy = await open()
      if (copy !== undefined) yield copy
    } catch (error) {
      if (isConductorError(error) && error.code === 'NOT_FOUND') continue
      settings.warn(`cannot read ${key}: ${describeError(error)}`)
    }
  }
}

async function s3Copy(reader: S3Reader | undefined): Promise<Copy | undefined> {
  const head = await reader?.look()
  if (reader === undefined || head === undefined) return undefined
  const [{ isAnswer }, { s3Error }] = await Promise.all([import('./s3-client.js'), import('./s3-error.js')])
  if (head.status !== 200) throw s3Error(head, 'HEAD')
  const sha256 = head.headers['x-amz-meta-sha256']
  return {
    where: 's3',
    near: false,
    sha256: typeof sha256 === 'string' ? sha256 : undefined,
    contentType: head.headers['content-type'] ?? '',
    read: async (sink) => {
      const refusal = await reader.download(async (response: IncomingMessage) => {
        await pipeline(response, sink)
      })
      if (isAnswer(refusal)) throw s3Error(refusal, 'GET')
    },
  }
}

async function httpCopy(
  settings: Settings,
  key: string,
  http: GrantHttp | undefined,
): Promise<Copy | undefined> {
  if (http === undefined) return undefined
  const [{ parseAddress }, { exchange, readAnswer }, { authorization, httpError }, { encodeObjectKey }] =
    await Promise.all([
      import('./address.js'),
      import('./exchange.js'),
      import('./http-store.js'),
      import('./s3-address.js'),
    ])
  const base = parseAddress('results endpoint', http.endpoint)
  const [path = '', query] = base.path.split('?')
  const address = {
    ...base,
    path: `${path.replace(/\/$/, '')}/${encodeObjectKey(key)}${query === undefined ? '' : `?${query}`}`,
  }
  const call = { address, headers: authorization(http.token), limits: settings.limits }
  const head = await exchange({ ...call, method: 'HEAD' }, readAnswer)
  if (head.status === 404 || head.status === 405) return undefined
  if (head.status !== 200) throw httpError(head, http.token)
  const sha256 = head.headers['x-result-sha256']
  const etag = /^"([0-9a-f]{64})"$/.exec(head.headers.etag ?? '')?.[1]
  return {
    where: 'http',
    near: false,
    sha256: typeof sha256 === 'string' ? sha256 : etag,
    contentType: head.headers['content-type'] ?? '',
    read: async (sink) => {
      await exchange({ ...call, method: 'GET' }, async (response) => {
        if (response.statusCode !== 200) throw httpError(await readAnswer(response), http.token)
        await pipeline(response, sink)
      })
    },
  }
}
