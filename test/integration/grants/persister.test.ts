import { createHash, randomBytes } from 'node:crypto'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ListMultipartUploadsCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { describe, expect, it, vi } from 'vitest'
import type { BrokerOptions } from '../../../src/grants/granter.js'
import { faultedImplementations } from '../../conformance/persister/implementations.js'
import { type BrokerPlace, openBrokerPlace } from '../../support/grants/broker-place.js'
import { type Fault, type FaultRule, s3Fault } from '../../support/persister/fault-proxy.js'
import { finish, killGroup, start } from '../../support/persister/program.js'
import type { Cleanup } from '../../support/persister/scratch.js'
import { makeWorker, type Worker } from '../../support/persister/worker.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { choose, last } from '../../support/thorough.js'

const MIB = 1 << 20
/** Three parts, the last one short. */
const SIZE_BYTES = 33 * MIB + 12_345
const IN_PARTS: BrokerOptions = { maxPutBytes: MIB }
const FAULTS: readonly (readonly [string, Fault])[] = [
  ['its answer is lost', { kind: 'swallow' }],
  ['its answer breaks off', { kind: 'truncate' }],
  ['the store is busy', s3Fault(503, 'SlowDown')],
  ['its signature counts as too old', s3Fault(403, 'RequestTimeTooSkewed')],
]
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe.each(faultedImplementations)('$name', ({ name, argv }) => {
  describeEachS3(
    'with a broker',
    (server) => {
      const setUp = async (
        test: Cleanup,
        rule?: FaultRule,
        options?: BrokerOptions,
      ): Promise<{ at: BrokerPlace; worker: Worker }> => {
        const at = await openBrokerPlace(server(), rule, options)
        test.onTestFinished(() => at[Symbol.asyncDispose]())
        return { at, worker: await makeWorker(test, argv, at.target) }
      }
      const openUploads = async ({ at, place }: BrokerPlace): Promise<unknown[]> =>
        (await at.client.send(new ListMultipartUploadsCommand({ Bucket: place.bucket }))).Uploads ?? []

      it('stores a result with one request to each', async (test) => {
        const { at, worker } = await setUp(test)
        const stored = await worker.persist(['-q', '-m', '{"a":"ü"}', '--name', 'ü b', '-'], {
          input: 'hello',
        })
        expect(stored).toMatchObject({ status: 0, stderr: '' })
        expect(await at.target.read(stored.key)).toMatchObject({
          bytes: Buffer.from('hello'),
          sha256: sha256(Buffer.from('hello')),
          metadata: { a: 'ü' },
        })
        expect(at.asked).toEqual(['put'])
        expect(at.proxy.requests.filter((line) => line.includes(worker.taskId))).toHaveLength(1)
        const [record] = await worker.records()
        await rm(join(worker.localDir, worker.taskId), { recursive: true })
        expect(await worker.persist(['--retrieve', stored.key])).toMatchObject({
          status: 0,
          stdout: 'hello',
          stderr: '',
        })
        expect(at.asked).toEqual(['put', 'get'])
        const missing = await worker.persist(['--retrieve', `${stored.key}x`])
        expect(missing).toMatchObject({ status: 1, stdout: '' })
        expect(missing.stderr).toMatch(/^persist-result: no result has the key [^\n]+\n$/)
        expect(record?.stored).toMatchObject([
          { tier: 's3', location: `s3://${at.place.bucket}/out/put/${stored.key}` },
        ])
      })

      it('keeps metadata that is too big for headers', async (test) => {
        const { at, worker } = await setUp(test)
        const metadata = { long: 'x'.repeat(5000) }
        const stored = await worker.persist(['-q', '-m', JSON.stringify(metadata), '--name', 'm', '-'], {
          input: 'm',
        })
        expect(stored).toMatchObject({ status: 0, stderr: '' })
        expect((await at.target.read(stored.key))?.metadata).toEqual(metadata)
      })

      it.for(choose(FAULTS, (_, i) => name === 'node' || i === 1))(
        'stores once although %s',
        async ([_what, fault], test) => {
          let failed = false
          const { at, worker } = await setUp(test, ({ method, url = '' }) => {
            if (method !== 'PUT' || !url.includes('/task-') || failed) return undefined
            failed = true
            return fault
          })
          const env = { WORKER_RESULTS_STALL_SECONDS: '1' }
          const stored = await worker.persist(['-q', '--name', 'x', '-'], { input: 'x', env })
          expect(stored).toMatchObject({ status: 0, stderr: '' })
          expect(await at.target.keys(worker.taskId)).toEqual([stored.key])
          expect(failed).toBe(true)
        },
      )

      it('moves on when another result has its key', async (test) => {
        const { at, worker } = await setUp(test)
        // Whatever second it is stored in, its key is taken.
        const now = Date.now()
        const taken = Array.from({ length: 20 }, (_, i) => {
          const iso = new Date(now + (i - 2) * 1000).toISOString()
          return `${iso.slice(0, 10).replaceAll('-', '')}-${iso.slice(11, 19).replaceAll(':', '')}`
        }).slice(0, 8)
        await Promise.all(
          taken.map((stamp) =>
            at.at.client.send(
              new PutObjectCommand({
                Bucket: at.place.bucket,
                Key: `out/put/${worker.taskId}/${stamp}-x`,
                Body: 'other',
                Metadata: { sha256: 'f'.repeat(64) },
              }),
            ),
          ),
        )
        const stored = await worker.persist(['-q', '--name', 'x', '-'], { input: 'mine' })
        expect(stored).toMatchObject({ status: 0, stderr: '' })
        expect(taken).not.toContain(stored.key.slice(worker.taskId.length + 1, -2))
        expect((await at.target.read(stored.key))?.bytes.toString()).toBe('mine')
      })

      it('keeps a result in the spool while nobody answers, and delivers it later', async (test) => {
        const { at, worker } = await setUp(test)
        at.crash()
        const stored = await worker.persist(['-q', '--name', 'x', '-'], {
          input: 'x',
          env: { WORKER_RESULTS_DEADLINE_SECONDS: '1' },
        })
        expect(stored.status).toBe(0)
        expect(stored.stderr).toMatch(/S3 storage failed: (the broker answered 503|not done within 1 s)/)
        at.restart()
        expect(await worker.persist(['--flush'])).toMatchObject({ status: 0, stderr: '' })
        expect((await at.target.read(stored.key))?.bytes.toString()).toBe('x')
      })

      it('goes on with parts after it and its conductor were killed', async (test) => {
        let stuck = true
        const { at, worker } = await setUp(
          test,
          ({ url = '' }) => (stuck && url.includes('partNumber=3') ? { kind: 'hang' } : undefined),
          IN_PARTS,
        )
        const bytes = Buffer.alloc(SIZE_BYTES, randomBytes(1009))
        await writeFile(join(worker.folder, 'big.bin'), bytes)
        const child = start([...argv, '-q', 'big.bin'], { env: worker.env, cwd: worker.folder, group: true })
        const finished = finish(child)
        const folder = join(worker.localDir, worker.taskId, '.upload')
        await vi.waitFor(async () => {
          const [file = ''] = await readdir(folder)
          const state = JSON.parse(await readFile(join(folder, file), 'utf8')) as { done: number[] }
          expect(state.done.sort()).toEqual([1, 2])
        }, 20_000)
        killGroup(child)
        expect((await finished).signal).toBe('SIGKILL')
        stuck = false
        at.restart()
        const before = at.proxy.requests.length
        const flushed = await worker.persist(['--flush'])
        expect(flushed).toMatchObject({ status: 0, stderr: '' })
        expect(at.proxy.requests.slice(before).filter((line) => line.includes('partNumber='))).toHaveLength(1)
        expect(sha256((await at.target.read(flushed.key))?.bytes ?? Buffer.alloc(0))).toBe(sha256(bytes))
        expect(await openUploads(at)).toEqual([])
        expect(await readdir(folder)).toEqual([])
      })

      it('sends again what the store has lost of an upload', async (test) => {
        let lost = false
        const { at, worker } = await setUp(
          test,
          ({ url = '' }) => {
            if (lost || !url.includes('partNumber=2')) return undefined
            lost = true
            // As a store that says that it has it, and has not.
            return { kind: 'answer', status: 200, headers: { etag: '"none"' } }
          },
          IN_PARTS,
        )
        const bytes = Buffer.alloc(SIZE_BYTES, randomBytes(1009))
        await writeFile(join(worker.folder, 'big.bin'), bytes)
        const stored = await worker.persist(['-q', 'big.bin'])
        expect(stored).toMatchObject({ status: 0, stderr: '' })
        expect(sha256((await at.target.read(stored.key))?.bytes ?? Buffer.alloc(0))).toBe(sha256(bytes))
      })

      it('says what it may not, and frees what it began', async (test) => {
        const { at, worker } = await setUp(
          test,
          ({ url = '' }) => (url.includes('partNumber=2') ? s3Fault(403, 'AccessDenied') : undefined),
          { ...IN_PARTS, maxTaskBytes: SIZE_BYTES },
        )
        await writeFile(join(worker.folder, 'big.bin'), Buffer.alloc(SIZE_BYTES))
        const refused = await worker.persist(['-q', 'big.bin'])
        expect(refused.status).toBe(0)
        expect(refused.stderr).toMatch(/S3 storage failed: AccessDenied: AccessDenied \(UploadPart 2\)/)
        expect(await openUploads(at)).toEqual([])
        await writeFile(join(worker.folder, 'more.bin'), Buffer.alloc(MIB))
        const beyond = await worker.persist(['-q', 'more.bin'])
        expect(beyond.stderr).toMatch(
          /S3 storage failed: 1048576 bytes more are beyond the \d+ that the task may store/,
        )
      })
    },
    choose(s3Servers(), last),
  )
})
