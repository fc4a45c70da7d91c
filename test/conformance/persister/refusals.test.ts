import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { type Fault, s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { type HttpReceiver, startHttpReceiver } from '../../support/persister/http-receiver.js'
import type { Cleanup } from '../../support/persister/scratch.js'
import { openS3Place, type S3Place, s3Environment, spoolTarget } from '../../support/persister/targets.js'
import { makeWorker } from '../../support/persister/worker.js'
import { startLocalServer } from '../../support/s3/servers.js'
import { faultedImplementations } from './implementations.js'

/** What a refusal means, by the name of the file that meets it. */
interface Refusal {
  readonly fault: Fault
  /** Code in the record, or that the next attempt is made and succeeds. */
  readonly means: string
}

const bare = (status: number, body = ''): Fault => ({ kind: 'answer', status, body })
const final = (fault: Fault, means: string): Refusal => ({ fault, means })
const again = (fault: Fault): Refusal => ({ fault, means: 'again' })

// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
const s3Refusals: Readonly<Record<string, Refusal>> = {
  'access-denied': final(s3Fault(403, 'AccessDenied'), 'ACCESS_DENIED'),
  signature: final(s3Fault(403, 'SignatureDoesNotMatch'), 'ACCESS_DENIED'),
  'key-id': final(s3Fault(403, 'InvalidAccessKeyId'), 'ACCESS_DENIED'),
  token: final(s3Fault(400, 'InvalidToken'), 'ACCESS_DENIED'),
  'expired-token': final(s3Fault(400, 'ExpiredToken'), 'EXPIRED'),
  'expired-request': final(s3Fault(403, 'ExpiredRequest'), 'EXPIRED'),
  refresh: final(s3Fault(400, 'TokenRefreshRequired'), 'EXPIRED'),
  'expired-words': final(s3Fault(403, 'AccessDenied', 'Request has expired'), 'EXPIRED'),
  'no-bucket': final(s3Fault(404, 'NoSuchBucket'), 'NOT_FOUND'),
  'too-large': final(s3Fault(400, 'EntityTooLarge'), 'TOO_LARGE'),
  quota: final(s3Fault(403, 'QuotaExceeded'), 'NO_SPACE'),
  unknown: final(s3Fault(400, 'MalformedXML'), 'PROTOCOL'),
  401: final(bare(401), 'ACCESS_DENIED'),
  403: final(bare(403), 'ACCESS_DENIED'),
  404: final(bare(404), 'NOT_FOUND'),
  413: final(bare(413), 'TOO_LARGE'),
  301: final(bare(301), 'PROTOCOL'),
  418: final(bare(418), 'PROTOCOL'),
  conflict: again(s3Fault(409, 'ConditionalRequestConflict')),
  aborted: again(s3Fault(409, 'OperationAborted')),
  digest: again(s3Fault(400, 'BadDigest')),
  'payload-digest': again(s3Fault(400, 'XAmzContentSHA256Mismatch')),
  checksum: again(s3Fault(400, 'XAmzContentChecksumMismatch')),
  incomplete: again(s3Fault(400, 'IncompleteBody')),
  timeout: again(s3Fault(400, 'RequestTimeout')),
  internal: again(s3Fault(500, 'InternalError')),
  unavailable: again(s3Fault(503, 'ServiceUnavailable')),
  slow: again(s3Fault(503, 'SlowDown')),
  throttling: again(s3Fault(400, 'Throttling')),
  exception: again(s3Fault(400, 'ThrottlingException')),
  limit: again(s3Fault(400, 'RequestLimitExceeded')),
  'not-implemented': again(s3Fault(501, 'NotImplemented')),
  taken: again(s3Fault(412, 'PreconditionFailed')),
  408: again(bare(408)),
  409: again(bare(409)),
  429: again(bare(429)),
  500: again(bare(500)),
  502: again(bare(502, '<html>')),
  504: again(bare(504)),
}

const httpRefusals: Readonly<Record<string, Refusal>> = {
  400: final(bare(400), 'PROTOCOL'),
  401: final(bare(401), 'EXPIRED'),
  403: final(bare(403), 'ACCESS_DENIED'),
  404: final(bare(404), 'NOT_FOUND'),
  405: final(bare(405), 'NOT_FOUND'),
  410: final(bare(410), 'NOT_FOUND'),
  413: final(bare(413), 'TOO_LARGE'),
  422: final(bare(422), 'PROTOCOL'),
  damaged: again(bare(422, '{"error":{"code":"digest_mismatch"}}')),
  501: final(bare(501), 'UNSUPPORTED'),
  507: final(bare(507), 'NO_SPACE'),
  302: final(bare(302), 'PROTOCOL'),
  408: again(bare(408)),
  425: again(bare(425)),
  429: again(bare(429)),
  500: again(bare(500)),
  502: again(bare(502)),
  503: again(bare(503)),
  504: again(bare(504)),
}

describe.concurrent.each(faultedImplementations)('what a refusal means, $name', ({ argv }) => {
  let place: S3Place
  let receiver: HttpReceiver
  beforeAll(async () => {
    place = await openS3Place(await startLocalServer())
    receiver = await startHttpReceiver()
  })
  afterAll(async () => {
    await receiver[Symbol.asyncDispose]()
    await place[Symbol.asyncDispose]()
  })

  /** Stores a file for each refusal, which it meets once, and gives what their records say of the tier. */
  async function meet(
    test: Cleanup,
    tier: 's3' | 'http',
    refusals: Readonly<Record<string, Refusal>>,
  ): Promise<Record<string, string>> {
    let posted = ''
    const met = new Set<string>()
    const upstream = tier === 's3' ? place.server.url : new URL(receiver.url).origin
    const proxy = await startFaultProxy(upstream, ({ method, url = '' }) => {
      // A form says the name only in its body.
      const name = tier === 's3' ? (/\d{8}-\d{6}-([a-z0-9-]+)\.txt$/.exec(url)?.[1] ?? '') : posted
      if (method === 'HEAD' || met.has(name)) return undefined
      met.add(name)
      return refusals[name]?.fault
    })
    test.onTestFinished(() => proxy[Symbol.asyncDispose]())
    const env =
      tier === 's3'
        ? { ...s3Environment(place.server, place.bucket), AWS_ENDPOINT_URL_S3: proxy.url }
        : { WORKER_RESULTS_ENDPOINT: `${proxy.url}/results` }
    const worker = await makeWorker(test, argv, spoolTarget, env)
    const names = Object.keys(refusals)
    for (const name of names) await writeFile(join(worker.folder, `${name}.txt`), name)
    const outcomes: Record<string, string> = {}
    const store = async (task: string, files: readonly string[]): Promise<void> => {
      const { stdout } = await worker.persist([
        '-q',
        '--json',
        '-t',
        task,
        ...files.map((name) => `${name}.txt`),
      ])
      for (const line of stdout.trimEnd().split('\n')) {
        const { name, stored, errors } = JSON.parse(line) as ResultRecord
        outcomes[name.replace('.txt', '')] = stored.length > 0 ? 'again' : (errors[tier]?.code ?? 'nothing')
      }
    }
    if (tier === 'http') {
      for (posted of names) await store(`${worker.taskId}-${posted}`, [posted])
      return outcomes
    }
    // Those that get through would else deliver the others after all.
    const through = (name: string): boolean => refusals[name]?.means === 'again'
    await Promise.all([
      store(
        `${worker.taskId}-final`,
        names.filter((name) => !through(name)),
      ),
      store(`${worker.taskId}-again`, names.filter(through)),
    ])
    return outcomes
  }

  const meanings = (refusals: Readonly<Record<string, Refusal>>): Record<string, string> =>
    Object.fromEntries(Object.entries(refusals).map(([name, { means }]) => [name, means]))

  it('by S3', async (test) => {
    expect(await meet(test, 's3', s3Refusals)).toEqual(meanings(s3Refusals))
  })

  it('by an HTTP endpoint', async (test) => {
    expect(await meet(test, 'http', httpRefusals)).toEqual(meanings(httpRefusals))
  })

  it('by itself, of a key that leaves no room for the name of the sidecar it needs', async (test) => {
    const { taskId, ...worker } = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'content')
    const { bucket, server } = place
    const prefix = 'p'.repeat(1024 - `/${taskId}/YYYYmmdd-HHMMSS-f`.length)
    const withKeys = { ...s3Environment(server, bucket), WORKER_RESULTS_S3_PREFIX: prefix }
    const policy = { url: `${server.url}/${bucket}`, fields: {}, max_bytes: 1 << 20 }
    const s3 = { bucket, prefix, region: server.region, endpoint: server.url, policy }
    const grant = { v: 1, task_id: taskId, expires_at: '2999-01-01T00:00:00.000Z', s3 }
    const store = async (env: Record<string, string>, metadata: object): Promise<ResultRecord> => {
      const args = ['-q', '--json', '-m', JSON.stringify(metadata), 'f']
      return JSON.parse((await worker.persist(args, { env })).stdout) as ResultRecord
    }
    for (const env of [withKeys, { WORKER_RESULTS_GRANT: JSON.stringify(grant) }]) {
      expect((await store(env, { prose: 'x'.repeat(3000) })).errors.s3).toMatchObject({
        code: 'INVALID_OPTION',
        message: 'key with prefix and .meta.json must be at most 1024 bytes of UTF-8, has 1034',
      })
    }
    expect((await store(withKeys, {})).stored).toMatchObject([{ tier: 's3' }])
  })
})
