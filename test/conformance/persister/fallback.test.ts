import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mintGrant } from '../../../src/grants/mint-grant.js'
import {
  type Fault,
  type FaultProxy,
  type FaultRule,
  s3Fault,
  startFaultProxy,
} from '../../support/persister/fault-proxy.js'
import { type HttpReceiver, startHttpReceiver } from '../../support/persister/http-receiver.js'
import type { Cleanup } from '../../support/persister/scratch.js'
import {
  openS3Place,
  type S3Place,
  s3Environment,
  spoolTarget,
  type Target,
} from '../../support/persister/targets.js'
import { makeWorker, type Worker } from '../../support/persister/worker.js'
import { createClient } from '../../support/s3/client.js'
import { startLocalServer } from '../../support/s3/servers.js'
import { faultedImplementations } from './implementations.js'

/** Soon tired of a connection, and long of a server, so that a loaded machine gets everything there. */
const PATIENT = { WORKER_RESULTS_STALL_SECONDS: '1', WORKER_RESULTS_DEADLINE_SECONDS: '20' }
/** For a server that never gets well: short enough for a test, long enough for another tier to be asked. */
const IMPATIENT = { WORKER_RESULTS_DEADLINE_SECONDS: '3' }

describe.concurrent.each(faultedImplementations)('when storage fails, $name', ({ argv }) => {
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

  interface Setup {
    readonly worker: Worker
    readonly proxy: FaultProxy
    readonly target: Target
  }

  async function withFaults(
    test: Cleanup,
    rule: FaultRule,
    env: Record<string, string> = {},
  ): Promise<Setup> {
    const proxy = await startFaultProxy(place.server.url, rule)
    test.onTestFinished(() => proxy[Symbol.asyncDispose]())
    const s3 = s3Environment(place.server, place.bucket)
    const worker = await makeWorker(test, argv, spoolTarget, {
      ...s3,
      AWS_ENDPOINT_URL_S3: proxy.url,
      ...PATIENT,
      ...env,
    })
    await writeFile(join(worker.folder, 'f.txt'), 'content')
    return { worker, proxy, target: place.withKeys }
  }

  it.for<[string, Fault]>([
    ['500', s3Fault(500, 'InternalError')],
    ['503', s3Fault(503, 'SlowDown', 'Please reduce your request rate.')],
    ['a bare 502 from a gateway', { kind: 'answer', status: 502, body: '<html>Bad Gateway</html>' }],
    ['a reset connection', { kind: 'reset', afterBytes: 0 }],
    ['a reset in the middle of the body', { kind: 'reset', afterBytes: 3 }],
    ['an answer that breaks off', { kind: 'truncate' }],
    ['RequestTimeout', s3Fault(400, 'RequestTimeout')],
    ['a conflict', s3Fault(409, 'ConditionalRequestConflict')],
  ])('outlasts %s three times in a row', async ([, fault], test) => {
    const { worker, target } = await withFaults(test, (_request, n) => (n < 3 ? fault : undefined))
    const result = await worker.persist(['f.txt'])
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect((await target.read(result.key))?.bytes.toString()).toBe('content')
    expect(await target.keys(worker.taskId)).toEqual([result.key])
    expect((await worker.records())[0]?.stored).toMatchObject([{ tier: 's3' }])
  })

  it('gets over a server that hangs once', async (test) => {
    const { worker, target } = await withFaults(test, (_r, n) => (n === 0 ? { kind: 'hang' } : undefined))
    const result = await worker.persist(['f.txt'])
    expect(result.status).toBe(0)
    expect(await target.keys(worker.taskId)).toEqual([result.key])
  })

  it('does not store twice when the answer to the first upload was lost', async (test) => {
    const lose: FaultRule = (request, n) =>
      request.method === 'PUT' && n === 0 ? { kind: 'swallow' } : undefined
    const { worker, target, proxy } = await withFaults(test, lose)
    const result = await worker.persist(['f.txt'])
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect(await target.keys(worker.taskId)).toEqual([result.key])
    expect(proxy.requests.length).toBeGreaterThan(1)
  })

  it('does not take its own object for another’s when the answer that tells breaks off in its headers', async (test) => {
    const { worker, target, proxy } = await withFaults(test, ({ method }, n) => {
      if (n === 0) return { kind: 'swallow' }
      return method === 'HEAD' && n < 4 ? { kind: 'behead' } : undefined
    })
    const result = await worker.persist(['f.txt'])
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect(proxy.requests.map((request) => request.split(' ')[0])).toContain('HEAD')
    expect(await target.keys(worker.taskId)).toEqual([result.key])
    expect((await worker.records()).map(({ key }) => key)).toEqual([result.key])
  })

  it.for<[string, Fault, RegExp]>([
    ['AccessDenied', s3Fault(403, 'AccessDenied', 'Access Denied'), /S3 storage failed: AccessDenied/],
    ['a wrong signature', s3Fault(403, 'SignatureDoesNotMatch'), /S3 storage failed: SignatureDoesNotMatch/],
    [
      'an expired token',
      s3Fault(400, 'ExpiredToken', 'The provided token has expired.'),
      /S3 storage failed: ExpiredToken/,
    ],
    ['a missing bucket', s3Fault(404, 'NoSuchBucket'), /S3 storage failed: NoSuchBucket/],
  ])('does not try again after %s, and keeps the result', async ([, fault, says], test) => {
    const { worker, proxy } = await withFaults(test, () => fault)
    const result = await worker.persist(['-q', 'f.txt'])
    expect(result.status).toBe(0)
    expect(result.stderr).toMatch(says)
    expect(result.stderr).not.toContain(place.server.credentials.secretAccessKey)
    expect(proxy.requests).toHaveLength(1)
    expect(await worker.spooled(result.key)).toEqual(Buffer.from('content'))
    const [record] = await worker.records()
    expect(record).toMatchObject({ stored: [], errors: { s3: { message: expect.any(String) } } })
    expect((await worker.persist(['-q', '--require', 's3', 'f.txt'])).status).toBe(3)
  })

  it.for<[string, Fault]>([
    ['hangs', { kind: 'hang' }],
    ['only says 503', s3Fault(503, 'ServiceUnavailable')],
    ['refuses', s3Fault(403, 'AccessDenied')],
  ])('goes on to HTTP when S3 %s', async ([, fault], test) => {
    const { worker } = await withFaults(test, () => fault, {
      ...IMPATIENT,
      WORKER_RESULTS_ENDPOINT: receiver.url,
    })
    const result = await worker.persist(['f.txt'])
    expect(result.status).toBe(0)
    expect(result.stderr).toMatch(/^persist-result: S3 storage failed: [^\n]+\n$/)
    expect(receiver.forms.get(result.key)?.file.toString()).toBe('content')
    expect((await worker.records())[0]).toMatchObject({ stored: [{ tier: 'http', location: receiver.url }] })
    expect((await worker.persist(['-q', '--require', 'remote', 'f.txt'])).status).toBe(0)
    expect((await worker.persist(['-q', '--require', 's3', 'f.txt'])).status).toBe(3)
  })

  it('keeps what no tier took and delivers it with the next call', async (test) => {
    let down = true
    const { worker, target } = await withFaults(test, () => (down ? s3Fault(403, 'AccessDenied') : undefined))
    const keys: string[] = []
    for (let i = 0; i < 3; i++) keys.push((await worker.persist(['f.txt'])).key)
    expect(await target.keys(worker.taskId)).toEqual([])
    down = false
    keys.push((await worker.persist(['f.txt'])).key)
    expect(await target.keys(worker.taskId)).toEqual(keys.sort())
    const told = (await worker.records()).map(({ stored, errors }) => [stored.length, errors.s3])
    expect(told).toEqual(keys.map(() => [1, undefined]))
  })

  it('delivers what is pending on --flush, once', async (test) => {
    let down = true
    const { worker, target, proxy } = await withFaults(test, () =>
      down ? s3Fault(403, 'AccessDenied') : undefined,
    )
    const keys = [
      (await worker.persist(['f.txt'])).key,
      (await worker.persist(['-n', 'ü', 'f.txt'])).key,
    ].sort()
    expect(await worker.persist(['--flush'])).toMatchObject({ status: 0, stdout: '' })
    expect((await worker.persist(['--flush', '-q', '--require', 's3'])).status).toBe(3)
    down = false
    const flushed = await worker.persist(['--flush'])
    expect(flushed).toMatchObject({ status: 0, stderr: '' })
    expect(flushed.stdout.trimEnd().split('\n').sort()).toEqual(keys)
    expect(await target.keys(worker.taskId)).toEqual(keys)
    const before = proxy.requests.length
    expect(await worker.persist(['--flush'])).toMatchObject({ status: 0, stdout: '' })
    expect(proxy.requests).toHaveLength(before)
  })

  it('never overwrites what another has stored under its key', async (test) => {
    const { worker, target } = await withFaults(test, () => undefined)
    const down = await worker.persist(['f.txt'], { env: { AWS_SECRET_ACCESS_KEY: 'wrong' } })
    expect((await worker.records())[0]?.key).toBe(down.key)
    const client = createClient(place.server)
    test.onTestFinished(() => client.destroy())
    await client.send(
      new PutObjectCommand({ Bucket: place.bucket, Key: `out/put/${down.key}`, Body: 'of somebody else' }),
    )
    const flushed = await worker.persist(['--flush'])
    expect(flushed.status).toBe(0)
    expect(flushed.key).not.toBe(down.key)
    expect(await target.keys(worker.taskId)).toEqual([down.key, flushed.key])
    expect((await target.read(flushed.key))?.bytes.toString()).toBe('content')
    expect((await worker.records()).map(({ key }) => key)).toEqual([flushed.key])
    expect(await worker.persist(['--retrieve', flushed.key])).toMatchObject({ status: 0, stdout: 'content' })
  })

  it('works with a clock that is an hour wrong', async (test) => {
    // The server's clock is moved instead of the worker's: to a signature it is the same.
    let aheadMs = 0
    const far = await openS3Place(await startLocalServer({ now: () => Date.now() + aheadMs }))
    test.onTestFinished(() => far[Symbol.asyncDispose]())
    const worker = await makeWorker(test, argv, far.withKeys)
    await writeFile(join(worker.folder, 'f.txt'), 'content')
    for (aheadMs of [3_600_000, -3_600_000]) {
      expect(await worker.persist(['f.txt'])).toMatchObject({ status: 0, stderr: '' })
    }
    aheadMs = 0
    expect(await far.withKeys.keys(worker.taskId)).toHaveLength(2)
  })

  describe('with a grant', () => {
    interface GrantOptions {
      readonly expiresInMs?: number
      readonly maxBytes?: number
      readonly via?: string
      readonly from?: S3Place
    }

    async function grantText(taskId: string, options: GrantOptions = {}): Promise<string> {
      const { server, bucket } = options.from ?? place
      const endpoint = options.via ?? server.url
      const client = createClient({ ...server, url: endpoint })
      const s3 = {
        client,
        bucket,
        prefix: 'out/put',
        region: server.region,
        endpoint,
        close: () => undefined,
      }
      const expiresAt = new Date(Date.now() + (options.expiresInMs ?? 60_000))
      try {
        return JSON.stringify(
          await mintGrant({ taskId, expiresAt, s3, maxResultBytes: options.maxBytes ?? 1 << 20 }),
        )
      } finally {
        client.destroy()
      }
    }

    it('refuses what is larger than the grant allows before sending it', async (test) => {
      const worker = await makeWorker(test, argv, spoolTarget)
      await writeFile(join(worker.folder, 'big'), randomBytes(2000))
      const grant = await grantText(worker.taskId, { maxBytes: 1000 })
      const result = await worker.persist(['-q', 'big'], { env: { WORKER_RESULTS_GRANT: grant } })
      expect(result.status).toBe(0)
      expect(result.stderr).toMatch(/S3 storage failed: 2000 bytes .*1000/)
    })

    it('reads the grant file again when the grant has expired, and only once', async (test) => {
      let aheadMs = 0
      const from = await openS3Place(await startLocalServer({ now: () => Date.now() + aheadMs }))
      test.onTestFinished(() => from[Symbol.asyncDispose]())
      const worker = await makeWorker(test, argv, spoolTarget)
      await writeFile(join(worker.folder, 'f'), 'content')
      const file = join(worker.localDir, '.worker', worker.taskId, 'grant.json')
      await mkdir(dirname(file), { recursive: true })
      let next = ''
      const proxy = await startFaultProxy(from.server.url, () => {
        // The conductor writes a fresh grant just when the old one is refused.
        writeFileSync(file, next)
        return undefined
      })
      test.onTestFinished(() => proxy[Symbol.asyncDispose]())
      const mint = (expiresInMs: number): Promise<string> =>
        grantText(worker.taskId, { expiresInMs, via: proxy.url, from })
      const stale = await mint(60_000)
      const fresh = await mint(600_000)
      aheadMs = 120_000

      next = stale
      await writeFile(file, stale)
      const refused = await worker.persist(['-q', 'f'])
      expect(refused.status).toBe(0)
      expect(refused.stderr).toMatch(/^persist-result: S3 storage failed: [^\n]*expired[^\n]*\n$/i)
      expect(refused.stderr).not.toMatch(/X-Amz|policy=/)
      expect(proxy.requests).toHaveLength(1)

      next = fresh
      const taken = await worker.persist(['f'])
      expect(taken).toMatchObject({ status: 0, stderr: '' })
      aheadMs = 0
      expect(await from.withGrant.keys(worker.taskId)).toEqual([refused.key, taken.key].sort())
    })

    it('cannot write into the prefix of another task', async (test) => {
      const worker = await makeWorker(test, argv, spoolTarget)
      await writeFile(join(worker.folder, 'f'), 'content')
      const foreign = { ...(JSON.parse(await grantText('another-task')) as object), task_id: worker.taskId }
      const result = await worker.persist(['-q', 'f'], {
        env: { WORKER_RESULTS_GRANT: JSON.stringify(foreign) },
      })
      expect(result.status).toBe(0)
      expect(result.stderr).toMatch(/S3 storage failed: AccessDenied/)
      expect(await place.withGrant.keys(worker.taskId)).toEqual([])
    })

    it('survives a grant that is nonsense', async (test) => {
      for (const nonsense of [
        '{',
        '[]',
        '{"v":1}',
        '{"v":2,"task_id":"x","expires_at":"2026-01-01T00:00:00Z"}',
      ]) {
        const worker = await makeWorker(test, argv, spoolTarget)
        await writeFile(join(worker.folder, 'f'), 'content')
        const result = await worker.persist(['-q', 'f'], { env: { WORKER_RESULTS_GRANT: nonsense } })
        expect(result.status).toBe(0)
        expect(result.stderr).toMatch(/^persist-result: the grant in WORKER_RESULTS_GRANT is malformed/)
      }
    })
  })
})
