import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  GetBucketLifecycleConfigurationCommand,
  ListObjectsV2Command,
  PutBucketLifecycleConfigurationCommand,
  PutObjectCommand,
} from '@aws-sdk/client-s3'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Conductor } from '../../../src/conductor/conductor.js'
import { serveResults } from '../../../src/endpoint/index.js'
import type { Manifest } from '../../../src/protocol/manifest.js'
import type { Outcome } from '../../../src/protocol/outcome.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { lifecycleRule } from '../../../src/results/lifecycle-rule.js'
import { type PruneContext, pruneTasks } from '../../../src/results/prune.js'
import type { Tasks } from '../../../src/results/tasks.js'
import { S3Intents } from '../../../src/stores/s3/s3-intents.js'
import { openS3Location, type S3Location, type S3Options } from '../../../src/stores/s3/s3-location.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { S3Store } from '../../../src/stores/s3/s3-store.js'
import { S3Tasks } from '../../../src/stores/s3/s3-tasks.js'
import { type Fault, s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { plantInS3, plantJunkInS3 } from '../../support/plant-s3.js'
import { collect, recordFor } from '../../support/records.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { makeTempDir } from '../../support/temp-dir.js'
import { choose, last } from '../../support/thorough.js'

describeEachS3(
  'tasks',
  (server) => {
    let at: S3Location
    let options: S3Options
    let conductor: Conductor
    beforeEach(async () => {
      const { url, region, credentials } = server()
      options = { bucket: await server().createBucket(), endpoint: url, region, credentials }
      at = openS3Location(options)
      conductor = new Conductor({ env: {}, s3: options })
    })
    afterEach(async () => {
      at.close()
      await conductor.close()
    })

    /** Plants results `name: body` of a task, and its manifest when it has an outcome. */
    const plant = async (
      taskId: string,
      bodies: Readonly<Record<string, string>>,
      { outcome, timestamp }: { outcome?: Outcome; timestamp?: string } = {},
    ): Promise<ResultRecord[]> => {
      const results = Object.entries(bodies).map(([name, text]) => {
        const body = Buffer.from(text)
        const record = recordFor({ taskId, name, ...(timestamp === undefined ? {} : { timestamp }) }, body)
        const stored = [{ tier: 's3' as const, location: 'there', at: record.created_at }]
        return { record: { ...record, stored }, body }
      })
      await plantInS3(at, results)
      const records = results.map(({ record }) => record)
      if (outcome === undefined) return records
      await new S3Manifests(at).update(taskId, () => ({
        v: 1,
        task_id: taskId,
        sealed_at: new Date().toISOString(),
        outcome,
        exit: null,
        complete: true,
        attempts: [],
        results: records.toSorted((a, b) => (a.key < b.key ? -1 : 1)),
      }))
      return records
    }
    const objects = async (): Promise<string[]> => {
      const { Contents = [] } = await at.client.send(new ListObjectsV2Command({ Bucket: at.bucket }))
      return Contents.map(({ Key = '' }) => Key)
    }
    /** S3 keeps times in whole seconds, so what is to be told apart by them must lie in different ones. */
    const nextSecond = (): Promise<void> => sleep(1005 - (Date.now() % 1000))
    const ids = async (tasks: Tasks): Promise<string[]> => (await tasks.list()).map(({ taskId }) => taskId)

    it('are listed newest first, sealed or not, a page at a time', async () => {
      await plant('done-1', { a: 'one', b: 'three' }, { outcome: 'succeeded' })
      await nextSecond()
      await plant('open', { a: 'x' })
      await plantJunkInS3(at, 'only-junk')
      await nextSecond()
      await plant('done-2', {}, { outcome: 'lost' })
      const list = await conductor.tasks().list()
      expect([...list]).toMatchObject([
        { taskId: 'done-2', state: 'sealed', outcome: 'lost', resultCount: 0, sizeBytes: 0, tiers: ['s3'] },
        {
          taskId: 'open',
          state: 'unsealed',
          outcome: undefined,
          sealedAt: undefined,
          resultCount: 1,
          sizeBytes: 1,
        },
        { taskId: 'done-1', state: 'sealed', outcome: 'succeeded', resultCount: 2, sizeBytes: 8 },
      ])
      expect(list.unavailable).toEqual([])
      expect(list[0]?.sealedAt?.getTime()).toBeGreaterThan(Date.now() - 60_000)
      const page = await conductor.tasks({ limit: 2 }).list()
      expect(page.map(({ taskId }) => taskId)).toEqual(['done-2', 'open'])
      const before = page[1] as (typeof page)[number]
      expect(await ids(conductor.tasks({ before }))).toEqual(['done-1'])
      expect(await ids(conductor.tasks({ before: before.updatedAt }))).toEqual(['done-1'])
      expect((await collect(conductor.tasks())).map(({ taskId }) => taskId)).toEqual(
        await ids(conductor.tasks()),
      )
      expect(() => conductor.tasks({ limt: 1 } as never)).toThrow(/unknown option "limt"/)
    })

    it('that are sealed show what came late, whatever its key, for a request to list', async () => {
      await plant('late', { a: 'x', z: 'y' }, { outcome: 'succeeded' })
      await plant('late', { b: 'of the same second' })
      await plant('late', { early: 'of a second before' }, { timestamp: '20200101-000000' })
      await using proxy = await startFaultProxy(server().url, () => undefined)
      await using counted = new Conductor({ env: {}, s3: { ...options, endpoint: proxy.url } })
      const list = await counted.results('late').list({ strict: true, metadata: false })
      expect(list.map(({ name, locations }) => [name, locations.length])).toEqual([
        ['early', 1],
        ['a', 1],
        ['b', 1],
        ['z', 1],
      ])
      expect(proxy.requests).toHaveLength(2)
    })

    it('that are sealed name what does not lie where they say, and what was deleted is not missed', async () => {
      await using dir = await makeTempDir()
      await using served = await serveResults({ directory: dir.path, authenticate: 'none' })
      await plant('w', { a: 'in S3' }, { outcome: 'succeeded' })
      const manifests = new S3Manifests(at)
      const record = recordFor({ taskId: 'w', name: 'b' }, Buffer.from('elsewhere'))
      const stored = [{ tier: 'http' as const, location: 'there', at: record.created_at }]
      await manifests.update(
        'w',
        (there) => there && { ...there, results: [...there.results, { ...record, stored }] },
      )
      const answers = createServer((request, response) => {
        request.resume()
        response.writeHead(405).end()
      }).listen(0, '127.0.0.1')
      await once(answers, 'listening')
      const postOnly = `http://127.0.0.1:${(answers.address() as AddressInfo).port}`
      try {
        for (const http of [null, { endpoint: served.url }, { endpoint: postOnly }]) {
          await using reader = new Conductor({ env: {}, s3: options, http })
          const results = reader.results('w')
          const list = await results.list()
          expect(list.map(({ name }) => name)).toEqual(['a'])
          expect(list.unavailable.filter(({ key }) => key !== undefined)).toMatchObject([
            { key: record.key, tier: 'http', error: { code: 'UNAVAILABLE' } },
          ])
          await expect(results.get(record.key)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
          await using target = await makeTempDir()
          const [saved, failed] = ['a', 'b'].map((name) => join(target.path, `20260114-120000-${name}`))
          await expect(results.download(target.path)).rejects.toMatchObject({
            code: 'UNAVAILABLE',
            report: { saved: [{ path: saved }], failed: [{ key: record.key, path: failed }] },
          })
          expect((await results({ name: 'a' }).list({ strict: true })).length).toBe(1)
        }
        await manifests.update('w', (there) => there && { ...there, deleting: [record.key] })
        expect((await conductor.results('w').list()).unavailable).toEqual([])
        expect(await conductor.results('w').get(record.key)).toBeUndefined()
      } finally {
        answers.close()
      }
    })

    it('cost what is promised, and no request for what is not read', async ({ onTestFinished }) => {
      const warnings: string[] = []
      const hear = ({ name }: Error): void => void warnings.push(name)
      process.on('warning', hear)
      onTestFinished(() => void process.off('warning', hear))
      for (let i = 0; i < 40; i++) await plant(`task-${i}`, { a: 'x' }, { outcome: 'succeeded' })
      await plant('open', { a: 'x' })
      await using proxy = await startFaultProxy(server().url, () => undefined)
      const [host, proxied] = [new URL(server().url).host, new URL(proxy.url).host]
      // The signature covers the host, so the proxy must not change it.
      expect(host).not.toBe(proxied)
      await using counted = new Conductor({ env: {}, s3: { ...options, endpoint: proxy.url } })
      for await (const _ of counted.tasks({ limit: 20 })) break
      const lists = proxy.requests.filter((request) => request.includes('list-type=2'))
      const heads = proxy.requests.filter((request) => request.startsWith('HEAD'))
      expect(lists).toHaveLength(3)
      expect(heads.length).toBeLessThanOrEqual(16)
      proxy.requests.length = 0
      expect(await counted.tasks({ signal: new AbortController().signal }).list()).toHaveLength(41)
      expect(proxy.requests).toHaveLength(3 + 40)
      // Of more listeners at a time than Node expects.
      expect(warnings).toEqual([])
    })

    it('are downloaded and deleted with no request more than it takes', async () => {
      const bodies = { a: 'one', b: 'two', 'c.tar.gz': 'three' }
      const large = recordFor(
        { taskId: 'open', name: 'd', metadata: { long: 'x'.repeat(3000) } },
        Buffer.from('four'),
      )
      await plant('open', bodies)
      await plantInS3(at, [{ record: large, body: Buffer.from('four') }])
      await plant('done', bodies, { outcome: 'succeeded' })
      let refusal: Fault | undefined
      let stays: string | undefined
      await using proxy = await startFaultProxy(server().url, ({ method, url }) => {
        if (method === 'DELETE' && url?.includes(`/${stays}?`)) return s3Fault(403, 'AccessDenied')
        return method === 'POST' && url?.includes('delete') ? refusal : undefined
      })
      const taken = (): string[] =>
        proxy.requests.splice(0).map((request) => request.slice(0, request.indexOf(' ')))
      await using counted = new Conductor({ env: {}, s3: { ...options, endpoint: proxy.url } })
      await using dir = await makeTempDir()

      // The manifest, the list, and each result.
      const { saved } = await counted.results('open').download(join(dir.path, 'open'))
      expect(saved.map(({ sizeBytes }) => sizeBytes)).toEqual([3, 3, 5, 4])
      // One of them asks for the task's intent: it is not sealed, and may have had a volume of its own.
      expect(taken()).toEqual(Array(7).fill('GET'))
      expect(await readFile(saved[3]?.path ?? '', 'utf8')).toBe('four')
      // What is there has to be held against its digest.
      expect((await counted.results('open').download(join(dir.path, 'open'))).skipped).toHaveLength(4)
      expect(taken().filter((method) => method === 'HEAD')).toHaveLength(4)
      await counted.results('done').download(join(dir.path, 'done'))
      expect(taken()).toEqual(Array(5).fill('GET'))

      const [a, b] = await counted.results('open').list({ metadata: false })
      const [c] = await counted.results('done').list()
      taken()
      // Whether it is sealed, whether it had a volume, object and sidecar, whether it was sealed meanwhile.
      expect(await a?.delete()).toMatchObject({ tiers: ['s3'] })
      expect(taken()).toEqual(['GET', 'GET', 'POST', 'GET'])
      // Read the manifest, say in it what goes, object and sidecar, take it out.
      expect(await c?.delete()).toMatchObject({ tiers: ['s3'] })
      expect(taken()).toEqual(['GET', 'PUT', 'POST', 'PUT'])
      expect((await counted.results('done').list()).map(({ name }) => name)).toEqual(['b', 'c.tar.gz'])
      taken()

      // A store that does not take several at once is asked for each, and from then on no more than that.
      refusal = s3Fault(501, 'NotImplemented')
      await b?.delete()
      expect(taken()).toEqual(['GET', 'GET', 'POST', 'DELETE', 'DELETE', 'GET'])
      await counted.results('open').delete({ name: 'd' })
      expect(taken().filter((method) => method === 'POST')).toEqual([])
      const left = [
        'results/.tasks/done.json',
        'results/done/20260114-120000-b',
        'results/done/20260114-120000-c.tar.gz',
        'results/open/20260114-120000-c.tar.gz',
      ]
      expect(await objects()).toEqual(left)

      // Where the object cannot go, what describes it stays as well.
      await plantInS3(at, [{ record: large, body: Buffer.from('four') }])
      stays = '20260114-120000-d'
      const d = await counted.results('open').latest('d')
      await expect(d?.delete()).rejects.toMatchObject({ code: 'ACCESS_DENIED' })
      expect(await objects()).toEqual([
        ...left,
        'results/open/20260114-120000-d',
        'results/open/20260114-120000-d.meta.json',
      ])
    })

    it('have results that are each read with one request, and once more where that fails', async () => {
      const odd = ['a', "it's (odd)* + 100%!&=?#", 'ü 日本 😀~', 'z']
      await plant('odd', Object.fromEntries(odd.map((name) => [name, `in ${name}`])))
      let fault: Fault | undefined
      await using proxy = await startFaultProxy(server().url, () => {
        const now = fault
        fault = undefined
        return now
      })
      const behind = openS3Location({ ...options, endpoint: proxy.url })
      try {
        const store = new S3Store(behind)
        const key = (name: string): string => `odd/20260114-120000-${name}`
        for (const name of odd) {
          const { body, about } = await store.openDescribed(key(name))
          expect(await text(body)).toBe(`in ${name}`)
          expect(await store.describe(key(name))).toMatchObject(about)
        }
        // The second ones are what it is described by.
        expect(proxy.requests.splice(0)).toHaveLength(2 * odd.length)
        for (const next of [s3Fault(503, 'SlowDown'), { kind: 'reset', afterBytes: 0 } as const]) {
          fault = next
          expect(await text(await store.open(key('z')))).toBe('in z')
          expect(proxy.requests.splice(0)).toHaveLength(2)
        }
        await expect(store.open(key('none'))).rejects.toMatchObject({ code: 'NOT_FOUND' })
        const stopping = new AbortController()
        fault = { kind: 'hang' }
        const reading = store.open(key('z'), { signal: stopping.signal })
        await vi.waitFor(() => expect(fault).toBeUndefined(), 20_000)
        stopping.abort(new Error('enough'))
        await expect(reading).rejects.toThrow('enough')
      } finally {
        behind.close()
      }
    })

    it('are not waited for for ever where a store takes no condition for met', async () => {
      const intent = { task_id: 'stuck', spawn_id: 's', conductor: 'c' }
      await new S3Intents(at).write({ v: 1, ...intent, created_at: new Date().toISOString() }, null)
      await using proxy = await startFaultProxy(server().url, ({ method }) =>
        method === 'PUT' ? s3Fault(412, 'PreconditionFailed') : undefined,
      )
      const behind = openS3Location({ ...options, endpoint: proxy.url })
      try {
        const intents = new S3Intents(behind)
        await expect(intents.close(intent)).rejects.toMatchObject({ code: 'UNSUPPORTED' })
        await expect(intents.reserveCertificate(intent, 'key')).rejects.toMatchObject({ code: 'UNSUPPORTED' })
      } finally {
        behind.close()
      }
    })

    it('are read as one, by glob or by name', async () => {
      await plant(
        'worker-1',
        { final: 'one', log: 'l' },
        { outcome: 'succeeded', timestamp: '20260114-120002' },
      )
      await plant('worker-2', { final: 'two' }, { timestamp: '20260114-120003' })
      await plant('worker.3', { final: 'three' }, { timestamp: '20260114-120001' })
      await plant('other', { final: 'four' })
      const finals = conductor.results({ tasks: 'worker-*', name: 'final' })
      const list = await finals.list()
      expect(list.map(({ taskId, name }) => [taskId, name])).toEqual([
        ['worker-1', 'final'],
        ['worker-2', 'final'],
      ])
      expect(await Promise.all(list.map((result) => result.text()))).toEqual(['one', 'two'])
      expect((await finals.latest())?.taskId).toBe('worker-2')
      const named = conductor.results({ tasks: ['other', 'worker.3', 'nobody'] })
      expect((await collect(named)).map(({ taskId }) => taskId)).toEqual(['other', 'worker.3'])
      expect((await named.get('other/20260114-120000-final'))?.size).toBe(4)
      await expect(named.get('worker-1/20260114-120002-final')).rejects.toMatchObject({
        code: 'INVALID_OPTION',
      })
      await using dir = await makeTempDir()
      const { saved } = await finals.download(dir.path)
      expect(saved.map(({ path }) => path)).toEqual([
        join(dir.path, 'worker-1', '20260114-120002-final'),
        join(dir.path, 'worker-2', '20260114-120003-final'),
      ])
      expect(await readFile(saved[1]?.path ?? '', 'utf8')).toBe('two')
      expect((await finals.delete()).deleted).toHaveLength(2)
      expect(
        (await conductor.results({ tasks: '*' }).list()).map(({ taskId, name }) => [taskId, name]),
      ).toEqual([
        ['other', 'final'],
        ['worker-1', 'log'],
        ['worker.3', 'final'],
      ])
      expect(() => conductor.results({ tasks: ['../x'] })).toThrow(/must be task ids/)
    })

    it('are deleted from past one that cannot be written, and what was begun is ended by doing it again', async () => {
      for (const id of ['w-1', 'w-2', 'w-3']) await plant(id, { a: 'x' }, { outcome: 'succeeded' })
      let refuses: (manifest: string, puts: number) => boolean = (manifest) => manifest === 'w-2'
      let puts = 0
      await using proxy = await startFaultProxy(server().url, ({ method, url = '' }) => {
        const [, manifest] = /\.tasks\/(.*)\.json/.exec(url) ?? []
        if (method !== 'PUT' || manifest === undefined) return undefined
        puts += 1
        return refuses(manifest, puts) ? s3Fault(403, 'AccessDenied') : undefined
      })
      await using broken = new Conductor({ env: {}, s3: { ...options, endpoint: proxy.url } })
      const all = broken.results({ tasks: 'w-*' })
      const first = await all.delete()
      expect(first.deleted.map(({ key }) => key.slice(0, 3))).toEqual(['w-1', 'w-3'])
      expect(first.failed).toMatchObject([
        { tiers: [], problems: [{ taskId: 'w-2', error: { code: 'ACCESS_DENIED' } }] },
      ])
      // Everything is gone, and only the manifest does not say so.
      puts = 0
      refuses = (_manifest, puts) => puts > 1
      expect(await all.delete()).toMatchObject({
        deleted: [{ tiers: ['s3'] }],
        unavailable: [{ tier: 's3' }],
      })
      expect(await all.list()).toHaveLength(0)
      const counts = async () => (await conductor.tasks().list()).map(({ resultCount }) => resultCount)
      expect((await counts()).toSorted()).toEqual([0, 0, 1])
      expect((await conductor.results({ tasks: 'w-*' }).delete()).failed).toEqual([])
      expect(await counts()).toEqual([0, 0, 0])
    })

    it('give each of several with the same bytes once, the oldest, and name the others', async () => {
      await plant('w-1', { a: 'same', b: 'own' }, { timestamp: '20260114-120002' })
      await plant('w-2', { a: 'same' }, { timestamp: '20260114-120001' })
      await plant('w-3', { a: 'same' }, { timestamp: '20260114-120003', outcome: 'succeeded' })
      const unique = conductor.results({ tasks: 'w-*', dedupe: 'sha256' })
      const list = await unique.list()
      expect(list.map(({ key }) => key)).toEqual(['w-1/20260114-120002-b', 'w-2/20260114-120001-a'])
      expect(list.duplicates).toEqual([
        { key: 'w-2/20260114-120001-a', others: ['w-1/20260114-120002-a', 'w-3/20260114-120003-a'] },
      ])
      expect((await collect(unique)).map(({ key }) => key)).toEqual(list.map(({ key }) => key))
      await expect(unique.delete()).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    })

    it('are forgotten whole once they are old enough, and only then', async () => {
      await plant('old-1', { a: 'one', b: 'two' }, { outcome: 'succeeded' })
      await plantJunkInS3(at, 'old-1')
      await plant('old-2', { a: 'x' }, { outcome: 'failed' })
      await plant('open', { a: 'x' })
      const before = await objects()
      expect(await conductor.prune({ olderThanDays: 1 })).toMatchObject({ tasks: [], results: 0, failed: [] })
      expect(await objects()).toEqual(before)
      const dry = await conductor.prune({ olderThanDays: 0, dryRun: true })
      expect(dry).toMatchObject({ dryRun: true, results: 3, sizeBytes: 7, failed: [], skipped: [] })
      expect(await objects()).toEqual(before)
      const progress: number[] = []
      const done = await conductor.prune({
        olderThanDays: 0,
        tasks: 'old-*',
        onProgress: ({ doneTasks }) => progress.push(doneTasks),
      })
      expect(progress).toEqual([1, 2])
      expect(done.tasks.map(({ taskId, results }) => [taskId, results]).sort()).toEqual([
        ['old-1', 2],
        ['old-2', 1],
      ])
      expect(await objects()).toEqual(['results/open/20260114-120000-a'])
      expect(await ids(conductor.tasks())).toEqual(['open'])
    })

    it('that were never sealed are forgotten only when asked and when no sandbox lives for them', async () => {
      await plant('open', { a: 'x' })
      expect((await conductor.prune({ olderThanDays: 0 })).tasks).toEqual([])
      // Nobody can say here whether a sandbox lives.
      const report = await conductor.prune({ olderThanDays: 0, unsealed: true })
      expect(report).toMatchObject({ tasks: [], failed: [{ taskId: 'open' }] })
      expect(await objects()).toHaveLength(1)
    })

    it('that are left half-forgotten show what is left, and are forgotten by the next call', async () => {
      await plant('old', { a: 'one', b: 'two', c: 'three' }, { outcome: 'succeeded' })
      let deletions = 0
      await using proxy = await startFaultProxy(server().url, (request) => {
        // The manifest is marked, the results are deleted, the manifest is not.
        if (request.method !== 'DELETE') return undefined
        deletions += 1
        return { kind: 'answer', status: 403 }
      })
      await using broken = new Conductor({ env: {}, s3: { ...options, endpoint: proxy.url } })
      const report = await broken.prune({ olderThanDays: 0 })
      expect(report).toMatchObject({
        tasks: [],
        failed: [{ taskId: 'old', error: { code: 'ACCESS_DENIED' } }],
      })
      expect(deletions).toBe(1)
      expect(await objects()).toEqual(['results/.tasks/old.json'])
      expect([...(await conductor.results('old').list())]).toEqual([])
      expect((await conductor.prune({ olderThanDays: 0 })).tasks).toMatchObject([{ taskId: 'old' }])
      expect(await objects()).toEqual([])
    })

    it('are left alone while they run once more', async () => {
      await plant('again', { a: 'x' }, { outcome: 'succeeded' })
      const intents = new S3Intents(at)
      const intent = { task_id: 'again', spawn_id: 'other', conductor: 'other' }
      await intents.write({ v: 1, ...intent, created_at: new Date(0).toISOString() }, null)
      await nextSecond()
      const report = await conductor.prune({ olderThanDays: 0 })
      expect(report.tasks).toEqual([])
      expect(report.skipped).toEqual([{ taskId: 'again', reason: 'its worker may still store results' }])
      expect((await conductor.results('again').list()).map(({ name }) => name)).toEqual(['a'])
      await intents.close(intent)
      expect((await conductor.prune({ olderThanDays: 0 })).tasks).toMatchObject([{ taskId: 'again' }])
    })

    it('are left alone when something newer came', async () => {
      await plant('old', { a: 'x' }, { outcome: 'succeeded' })
      await nextSecond()
      await nextSecond()
      // Well between the two, also where times are whole seconds.
      const cutoff = Math.floor(Date.now() / 1000) * 1000 - 500
      await plant('old', { late: 'y' }, { timestamp: '20260114-130000' })
      const days = (Date.now() - cutoff) / 86_400_000
      const report = await conductor.prune({ olderThanDays: days })
      expect(report).toMatchObject({
        tasks: [],
        skipped: [{ taskId: 'old', reason: expect.stringMatching(/has a result of/) }],
      })
      expect((await conductor.results('old').list()).map(({ name }) => name)).toEqual(['a', 'late'])
    })

    it('keep what another conductor seals of them while they are forgotten', async () => {
      await plant('old', { a: 'x' }, { outcome: 'succeeded' })
      const manifests = new S3Manifests(at)
      const sealAgain = async (name: string): Promise<void> => {
        const [late] = (await plant('old', { [name]: 'y' }, { timestamp: '20260114-130000' })) as [
          ResultRecord,
        ]
        await manifests.update('old', (present) => {
          const { results = [], ...rest } = present as Manifest
          return {
            ...rest,
            sealed_at: new Date().toISOString(),
            outcome: 'failed',
            results: [...results, late],
          }
        })
      }
      const context: PruneContext = {
        indexes: [new S3Tasks(at)],
        manifests,
        of: (taskId) => ({ taskId, manifests, stores: async () => [new S3Store(at)] }),
        isAlive: async () => false,
        forget: () => sealAgain('late'),
      }
      const report = await pruneTasks(context, { olderThanDays: 0 })
      expect(report).toMatchObject({
        tasks: [],
        failed: [],
        skipped: [{ taskId: 'old', reason: expect.stringMatching(/sealed again/) }],
      })
      const left = await manifests.read('old')
      expect(left).toMatchObject({ outcome: 'failed', results: [{ name: 'late' }] })
      expect(left?.deleting).toBeUndefined()
    })

    it('have a lifecycle rule that S3 takes', async ({ skip }) => {
      if (server().name === 'local') skip('the local S3 has no lifecycle rules')
      const rule = lifecycleRule({ olderThanDays: 90, prefix: 'some/results' })
      const LifecycleConfiguration = JSON.parse(JSON.stringify(rule))
      await at.client.send(
        new PutBucketLifecycleConfigurationCommand({ Bucket: at.bucket, LifecycleConfiguration }),
      )
      const { Rules } = await at.client.send(
        new GetBucketLifecycleConfigurationCommand({ Bucket: at.bucket }),
      )
      expect(
        Rules?.map(({ Filter, Expiration, Status }) => [Filter?.Prefix, Expiration?.Days, Status]).sort(),
      ).toEqual([
        ['some/results/', 90, 'Enabled'],
        ['some/results/.tasks/', 89, 'Enabled'],
      ])
    })

    it('that a listing names oddly are passed over', async () => {
      await plant('w', { a: 'x' }, { outcome: 'succeeded' })
      for (const key of [
        '.tasks/.json',
        '.tasks/x.txt',
        '.tasks/a/b.json',
        '.tasks/-x.json',
        '-odd/x',
        'loose',
      ]) {
        await at.client.send(new PutObjectCommand({ Bucket: at.bucket, Key: `results/${key}`, Body: '{}' }))
      }
      await at.client.send(
        new PutObjectCommand({ Bucket: at.bucket, Key: 'results/.tasks/forged.json', Body: '{"v":1}' }),
      )
      const list = await conductor.tasks().list()
      expect(list.map(({ taskId }) => taskId).sort()).toEqual(['forged', 'w'])
      expect(list.unavailable).toMatchObject([{ taskId: 'forged', error: { code: 'PROTOCOL' } }])
    })
  },
  choose(s3Servers(), last),
)

describe('where nobody can list tasks', () => {
  it('says so', async () => {
    await using bare = new Conductor({ env: {}, s3: null, http: null })
    await expect(bare.tasks().list()).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    await expect(bare.results({ tasks: '*' }).list()).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    expect([...(await bare.results({ tasks: [] }).list())]).toEqual([])
    await expect(bare.prune({ olderThanDays: 1 })).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  })
})
