import type { IncomingMessage } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { isConductorError } from '../../errors.js'
import { s3ObjectKey } from '../../protocol/s3-layout.js'
import type { Copy } from '../copy.js'
import { describeError } from '../fs-error.js'
import type { Settings } from '../settings.js'

/** The remote places that this environment can read from; a grant's policy only writes. */
export async function* remoteCopies(settings: Settings, key: string): AsyncGenerator<Copy> {
  const { env } = settings
  for (const open of [env.s3?.credentials && s3Copy, env.http && httpCopy]) {
    if (!open) continue
    try {
      const copy = await open(settings, key)
      if (copy !== undefined) yield copy
    } catch (error) {
      if (isConductorError(error) && error.code === 'NOT_FOUND') continue
      settings.warn(`cannot read ${key}: ${describeError(error)}`)
    }
  }
}

async function s3Copy(settings: Settings, key: string): Promise<Copy | undefined> {
  const s3 = settings.env.s3
  if (s3?.credentials === undefined) return undefined
  const [{ isAnswer, S3Client }, { s3Error }] = await Promise.all([
    import('./s3-client.js'),
    import('./s3-error.js'),
  ])
  const { bucket, region, endpoint } = s3
  const client = new S3Client({ bucket, region, endpoint }, s3.credentials, settings.limits)
  const objectKey = s3ObjectKey(s3.prefix, key)
  const head = await client.call({ method: 'HEAD', objectKey })
  if (head.status === 404) return undefined
  if (head.status !== 200) throw s3Error(head, 'HEAD')
  const sha256 = head.headers['x-amz-meta-sha256']
  return {
    where: 's3',
    near: false,
    sha256: typeof sha256 === 'string' ? sha256 : undefined,
    contentType: head.headers['content-type'] ?? '',
    read: async (sink) => {
      const refusal = await client.download(
        { method: 'GET', objectKey },
        async (response: IncomingMessage) => {
          await pipeline(response, sink)
        },
      )
      if (isAnswer(refusal)) throw s3Error(refusal, 'GET')
    },
  }
}

async function httpCopy(settings: Settings, key: string): Promise<Copy | undefined> {
  const http = settings.env.http
  if (http === undefined) return undefined
  const [{ exchange, parseAddress, readAnswer }, { authorization, httpError }, { encodeObjectKey }] =
    await Promise.all([import('./exchange.js'), import('./http-store.js'), import('./s3-address.js')])
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
