import { createHash, randomBytes } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ListMultipartUploadsCommand } from '@aws-sdk/client-s3'
import { describe, expect, it, vi } from 'vitest'
import { implementations } from '../../conformance/persister/implementations.js'
import { type FaultRule, s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { startHttpReceiver } from '../../support/persister/http-receiver.js'
import { finish, killGroup, run, start } from '../../support/persister/program.js'
import type { Cleanup } from '../../support/persister/scratch.js'
import { openS3Place, type S3Place } from '../../support/persister/targets.js'
import { makeWorker, type Worker } from '../../support/persister/worker.js'
import { createClient } from '../../support/s3/client.js'
import { describeEachS3, s3Servers, startLocalServer } from '../../support/s3/servers.js'
import { choose } from '../../support/thorough.js'

const MIB = 1 << 20
/** Five parts, the last one short. */
const SIZE_BYTES = 66 * MIB + 12_345
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

const isWholePut = (method = '', url = ''): boolean => method === 'PUT' && !url.includes('partNumber')

// One shell will do: what shells read otherwise lies in other parts, and the kills at random moments are for all of them.
const both = implementations.filter(({ name }) => name !== 'busybox')

describe.each(both)('$name', ({ name, argv }) => {
  const other = both.find((candidate) => candidate.argv !== argv)?.argv ?? argv

  describeEachS3(
    'uploads in parts',
    (server) => {
      interface Setup {
        readonly place: S3Place
        readonly worker: Worker
        readonly bytes: Buffer
        readonly requests: readonly string[]
      }

      async function setUp(test: Cleanup, rule: FaultRule): Promise<Setup> {
        const shared = { ...server(), [Symbol.asyncDispose]: async () => undefined }
        const place = await openS3Place(shared)
        test.onTestFinished(() => place[Symbol.asyncDispose]())
        const proxy = await startFaultProxy(place.server.url, rule)
        test.onTestFinished(() => proxy[Symbol.asyncDispose]())
        const worker = await makeWorker(test, argv, place.withKeys, { AWS_ENDPOINT_URL_S3: proxy.url })
        const bytes = Buffer.alloc(SIZE_BYTES, randomBytes(1009))
        await writeFile(join(worker.folder, 'big.bin'), bytes)
        return { place, worker, bytes, requests: proxy.requests }
      }

      async function expectWhole({ place, worker, bytes }: Setup, key: string): Promise<void> {
        const remote = await place.withKeys.read(key)
        expect(remote).toMatchObject({ sha256: sha256(bytes), metadata: { a: 'ü' } })
        expect(sha256(remote?.bytes ?? Buffer.alloc(0))).toBe(sha256(bytes))
        expect(await place.withKeys.keys(worker.taskId)).toEqual([key])
        const client = createClient(place.server)
        const open = await client.send(new ListMultipartUploadsCommand({ Bucket: place.bucket }))
        client.destroy()
        expect(open.Uploads ?? []).toEqual([])
        expect(await readdir(join(worker.localDir, worker.taskId, '.upload'))).toEqual([])
      }

      it('take over when a single request broke off, and the other implementation goes on after a kill', async (test) => {
        let killed = false
        const setup = await setUp(test, ({ method, url = '' }) => {
          if (isWholePut(method, url)) return { kind: 'reset', afterBytes: 5 * MIB }
          return url.includes('partNumber=5') && !killed ? { kind: 'hang' } : undefined
        })
        const { worker, requests } = setup
        const child = start([...argv, '-q', '-m', '{"a":"ü"}', 'big.bin'], {
          env: worker.env,
          cwd: worker.folder,
          group: true,
        })
        const finished = finish(child)
        const folder = join(worker.localDir, worker.taskId, '.upload')
        const noted = async (): Promise<string[]> => {
          const [file = ''] = await readdir(folder)
          const state = JSON.parse(await readFile(join(folder, file), 'utf8')) as { parts: object }
          return Object.keys(state.parts)
        }
        await vi.waitFor(async () => expect(await noted()).toEqual(['1', '2', '3', '4']), 20_000)
        killGroup(child)
        expect((await finished).signal).toBe('SIGKILL')
        killed = true
        expect(await setup.place.withKeys.keys(worker.taskId)).toEqual([])
        const before = requests.length
        const flushed = await run([...other, '--flush'], { env: worker.env, cwd: worker.folder })
        expect(flushed).toMatchObject({ status: 0, stderr: '' })
        await expectWhole(setup, flushed.key)
        const again = requests.slice(before).filter((line) => line.includes('partNumber='))
        expect(again).toHaveLength(1)
      })

      it('try each part again, and believe an answer to the completion only when it is one', async (test) => {
        const failed = new Set<string>()
        const setup = await setUp(test, ({ method, url = '' }) => {
          if (isWholePut(method, url)) return { kind: 'reset', afterBytes: MIB }
          const step =
            /partNumber=\d+/.exec(url)?.[0] ??
            (method === 'POST' ? url.replace(/uploadId=.*/, 'complete') : '')
          if (step === '' || failed.has(step)) return undefined
          failed.add(step)
          if (step.endsWith('complete')) return { ...s3Fault(200, 'InternalError') }
          return step.endsWith('3') ? { kind: 'reset', afterBytes: MIB } : s3Fault(503, 'SlowDown')
        })
        const result = await setup.worker.persist(['-q', '-m', '{"a":"ü"}', 'big.bin'])
        expect(result).toMatchObject({ status: 0, stderr: '' })
        await expectWhole(setup, result.key)
      })

      it('begin anew when the store has forgotten them', async (test) => {
        let forgotten = false
        const setup = await setUp(test, ({ method, url = '' }) => {
          if (isWholePut(method, url)) return { kind: 'reset', afterBytes: MIB }
          if (!url.includes('partNumber=2') || forgotten) return undefined
          forgotten = true
          return s3Fault(404, 'NoSuchUpload')
        })
        const result = await setup.worker.persist(['-q', '-m', '{"a":"ü"}', 'big.bin'])
        expect(result).toMatchObject({ status: 0, stderr: '' })
        const remote = await setup.place.withKeys.read(result.key)
        expect(sha256(remote?.bytes ?? Buffer.alloc(0))).toBe(sha256(setup.bytes))
      })

      it('are cleaned away when the store refuses them', async (test) => {
        const setup = await setUp(test, ({ method, url = '' }) => {
          if (isWholePut(method, url)) return { kind: 'reset', afterBytes: MIB }
          return url.includes('partNumber=2') ? s3Fault(403, 'AccessDenied') : undefined
        })
        const result = await setup.worker.persist(['-q', 'big.bin'])
        expect(result.status).toBe(0)
        expect(result.stderr).toMatch(/S3 storage failed: AccessDenied: AccessDenied \(UploadPart 2\)/)
        const client = createClient(setup.place.server)
        const open = await client.send(new ListMultipartUploadsCommand({ Bucket: setup.place.bucket }))
        client.destroy()
        expect(open.Uploads ?? []).toEqual([])
      })
    },
    choose(s3Servers(), (_, i, all) => i === (name === 'node' ? all.length - 1 : 0)),
  )

  describe('uploads in parts that another tier made needless', () => {
    it('are cleaned away, at the latest by the next flush', async (test) => {
      const place = await openS3Place(await startLocalServer())
      test.onTestFinished(() => place[Symbol.asyncDispose]())
      const receiver = await startHttpReceiver()
      test.onTestFinished(() => receiver[Symbol.asyncDispose]())
      let down = true
      const proxy = await startFaultProxy(place.server.url, ({ method = '', url = '' }) => {
        if (!down) return undefined
        if (method === 'DELETE') return s3Fault(503, 'SlowDown')
        if (isWholePut(method, url)) return s3Fault(503, 'SlowDown')
        return url.includes('partNumber=2') ? s3Fault(403, 'AccessDenied') : undefined
      })
      test.onTestFinished(() => proxy[Symbol.asyncDispose]())
      const worker = await makeWorker(test, argv, place.withKeys, {
        AWS_ENDPOINT_URL_S3: proxy.url,
        WORKER_RESULTS_ENDPOINT: receiver.url,
      })
      await writeFile(join(worker.folder, 'big.bin'), Buffer.alloc(65 * MIB))
      const stored = await worker.persist(['-q', 'big.bin'])
      expect(stored.status).toBe(0)
      expect(stored.stderr).toMatch(/S3 storage failed: /)
      expect(receiver.posts).toEqual([stored.key])
      const client = createClient(place.server)
      test.onTestFinished(() => client.destroy())
      const open = async (): Promise<unknown[]> =>
        (await client.send(new ListMultipartUploadsCommand({ Bucket: place.bucket }))).Uploads ?? []
      expect(await open()).toHaveLength(1)
      down = false
      expect(await worker.persist(['--flush'])).toMatchObject({ status: 0, stderr: '' })
      expect(await open()).toEqual([])
      expect(await readdir(join(worker.localDir, worker.taskId, '.upload'))).toEqual([])
      expect(receiver.posts).toEqual([stored.key])
    })
  })

  describe('the size from which parts are used', () => {
    it('is above what a single request does faster', async (test) => {
      const place = await openS3Place(await startLocalServer())
      test.onTestFinished(() => place[Symbol.asyncDispose]())
      const proxy = await startFaultProxy(place.server.url, () => undefined)
      test.onTestFinished(() => proxy[Symbol.asyncDispose]())
      const worker = await makeWorker(test, argv, place.withKeys, { AWS_ENDPOINT_URL_S3: proxy.url })
      await writeFile(join(worker.folder, 'big.bin'), Buffer.alloc(SIZE_BYTES))
      expect((await worker.persist(['-q', 'big.bin'])).status).toBe(0)
      expect(proxy.requests).toHaveLength(1)
    })
  })
})
