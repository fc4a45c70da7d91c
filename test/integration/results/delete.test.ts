import { afterEach, beforeEach, expect, it } from 'vitest'
import { ConductorError } from '../../../src/errors.js'
import type { Manifest } from '../../../src/protocol/manifest.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import type { ResultsContext } from '../../../src/results/context.js'
import { taskSource } from '../../../src/results/result-source.js'
import { createResults, type Results } from '../../../src/results/results.js'
import { DirectoryFiles } from '../../../src/stores/directory-files.js'
import type { ResultStore } from '../../../src/stores/result-store.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { S3Store } from '../../../src/stores/s3/s3-store.js'
import { SpoolStore } from '../../../src/stores/spool-store.js'
import { Crash, CrashPoint, crashingManifests, crashingStore } from '../../support/faulty-store.js'
import { plantInS3 } from '../../support/plant-s3.js'
import { plantInFolder } from '../../support/plant-spool.js'
import { collect, recordFor } from '../../support/records.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'
import { choose, last } from '../../support/thorough.js'

const TASK = 'w'
const NAMES = ['a', 'b', 'c', 'd']

describeEachS3(
  'deleting results',
  (server) => {
    let at: S3Location
    let dir: TempDir
    let s3: S3Store
    let spool: SpoolStore
    let manifests: S3Manifests
    let records: ResultRecord[]

    beforeEach(async () => {
      at = openS3Location({
        bucket: await server().createBucket(),
        endpoint: server().url,
        region: server().region,
        credentials: server().credentials,
      })
      dir = await makeTempDir()
      s3 = new S3Store(at)
      spool = new SpoolStore('spool', 'directory', new DirectoryFiles(dir.path))
      manifests = new S3Manifests(at)
      records = NAMES.map((name) => {
        const record = recordFor({ taskId: TASK, name, metadata: { name } }, Buffer.from(name))
        return { ...record, stored: [{ tier: 's3', location: 'there', at: record.created_at }] }
      })
      const planted = records.map((record) => ({ record, body: Buffer.from(record.name) }))
      await plantInS3(at, planted)
      for (const { record, body } of planted) await plantInFolder(dir.path, record, body)
      await manifests.update(TASK, () => manifestOf(records))
    })
    afterEach(async () => {
      at.close()
      await dir[Symbol.asyncDispose]()
    })

    const manifestOf = (results: readonly ResultRecord[], complete = true): Manifest => ({
      v: 1,
      task_id: TASK,
      sealed_at: '2026-01-14T12:01:00.000Z',
      outcome: 'succeeded',
      exit: { code: 0, signal: null },
      complete,
      attempts: [],
      results,
    })
    const results = (more: Partial<ResultsContext> = {}): Results =>
      createResults(taskSource({ taskId: TASK, manifests, stores: async () => [s3, spool], ...more }))
    const names = async (some: Results): Promise<string[]> => (await some.list()).map(({ name }) => name)
    const held = async (store: ResultStore): Promise<string[]> =>
      (await collect(store.list(TASK))).map(({ key }) => key.slice(key.lastIndexOf('-') + 1))

    it('takes one off every tier and out of the manifest', async () => {
      const result = await results().latest('b')
      expect(await result?.delete()).toEqual({
        key: records[1]?.key,
        sizeBytes: 1,
        tiers: ['directory', 's3'],
      })
      expect(await held(s3)).toEqual(['a', 'c', 'd'])
      expect(await held(spool)).toEqual(['a', 'c', 'd'])
      const manifest = await manifests.read(TASK)
      expect(manifest).toEqual(manifestOf(records.filter(({ name }) => name !== 'b')))
      expect(await manifests.summarize(TASK)).toMatchObject({ resultCount: 3, sizeBytes: 3 })
      expect(await result?.delete()).toMatchObject({ tiers: [] })
    })

    it('deletes what a filter admits, and nothing else', async () => {
      const report = await results().delete({ name: '[bc]' })
      expect(report.deleted.map(({ key, sizeBytes }) => [key, sizeBytes])).toEqual([
        [records[1]?.key, 1],
        [records[2]?.key, 1],
      ])
      expect(report).toMatchObject({ failed: [], unavailable: [] })
      expect(await names(results())).toEqual(['a', 'd'])
      expect((await results()({ metadata: { name: 'd' } }).delete()).deleted).toHaveLength(1)
      expect(await names(results())).toEqual(['a'])
      expect((await results().delete({ name: 'nothing' })).deleted).toEqual([])
      await results().delete()
      expect(await names(results())).toEqual([])
      expect((await manifests.read(TASK))?.results).toEqual([])
    })

    it('shows what is there and only that, wherever it is interrupted, and is ended by doing it again', async () => {
      const doomed = ['b', 'c']
      for (let steps = 0; ; steps++) {
        const point = new CrashPoint(steps)
        const crashing = results({
          manifests: crashingManifests(manifests, point),
          stores: async () => [crashingStore(s3, point), crashingStore(spool, point)],
        })
        const end = crashing.delete({ name: '[bc]' })
        if (steps < 5) await expect(end).rejects.toBeInstanceOf(Crash)
        else await end
        const left = new Set([...(await held(s3)), ...(await held(spool))])
        expect(await names(results()), `after ${steps} steps`).toEqual([...left].sort())
        expect([...left]).toEqual(expect.arrayContaining(['a', 'd']))
        // What is shown can be read, with the digest that the conductor wrote down.
        for (const result of await results().list()) expect(await result.text()).toBe(result.name)
        await results().delete({ name: '[bc]' })
        expect(await names(results())).toEqual(['a', 'd'])
        expect(await manifests.read(TASK)).toEqual(
          manifestOf(records.filter(({ name }) => !doomed.includes(name))),
        )
        if (!point.over) break
        const again = records.filter(({ name }) => doomed.includes(name))
        await plantInS3(
          at,
          again.map((record) => ({ record, body: Buffer.from(record.name) })),
        )
        for (const record of again) await plantInFolder(dir.path, record, Buffer.from(record.name))
        await manifests.update(TASK, () => manifestOf(records))
      }
    })

    it('takes as many requests for several as for two', async () => {
      const wide = { long: 'ä'.repeat(1000) }
      const odd = ["it's & <odd> + 100%", '報告 😀', 'd ', 'wide'].map((name) =>
        recordFor({ taskId: TASK, name, metadata: name === 'wide' ? wide : {} }, Buffer.from(name)),
      )
      await plantInS3(
        at,
        odd.map((record) => ({ record, body: Buffer.from(record.name) })),
      )
      const sent: string[] = []
      at.client.middlewareStack.add(
        (next, { commandName = '' }) =>
          (args) => {
            sent.push(commandName)
            return next(args)
          },
        { step: 'initialize', name: 'count' },
      )
      // White space at the end of a name: not every server reads it out of XML, so that one goes by itself.
      await results().delete({ name: '[!abcd]*' })
      expect(sent.filter((name) => name.startsWith('Delete'))).toEqual([
        'DeleteObjectsCommand',
        'DeleteObjectsCommand',
      ])
      sent.length = 0
      expect(await names(results())).toEqual(['a', 'b', 'c', 'd', 'd '])
      await results().delete({ name: 'd ' })
      expect(await names(results())).toEqual(NAMES)
      // Nothing of it stays behind for a later one of that name to inherit.
      const again = recordFor({ taskId: TASK, name: 'wide' }, Buffer.from('again'))
      await plantInS3(at, [{ record: again, body: Buffer.from('again') }])
      expect((await s3.describe(again.key))?.metadata).toEqual({})
    })

    it('says which tier failed, shows what that one still has, and ends it later', async () => {
      const down = new ConductorError('UNAVAILABLE', 'the spool is down', { retryable: true })
      const broken: ResultStore = {
        ...crashingStore(spool, new CrashPoint(0)),
        delete: async () => Promise.reject(down),
      }
      const some = results({ stores: async () => [s3, broken] })
      const report = await some.delete({ name: 'b' })
      expect(report.deleted).toEqual([])
      expect(report.failed).toMatchObject([
        { key: records[1]?.key, tiers: ['s3'], problems: [{ store: 'spool', error: down }] },
      ])
      await expect((await some.latest('c'))?.delete()).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        retryable: true,
        message: expect.stringMatching(
          /cannot delete w\/.*-c everywhere: spool: the spool is down; it is gone from s3/,
        ),
      })
      const list = await results().list()
      expect(list.map(({ name, tiers }) => [name, tiers])).toEqual([
        ['a', ['s3', 'directory']],
        ['b', ['directory']],
        ['c', ['directory']],
        ['d', ['s3', 'directory']],
      ])
      expect((await results().delete({ name: '[bc]' })).failed).toEqual([])
      expect((await manifests.read(TASK))?.deleting).toBeUndefined()
      expect(await names(results())).toEqual(['a', 'd'])
    })

    it('loses no other’s deletion when several write the manifest at once', async () => {
      await Promise.all(NAMES.slice(0, 3).map((name) => results().delete({ name })))
      expect(await manifests.read(TASK)).toEqual(manifestOf(records.slice(3)))
    })

    it('leaves no trace in the manifest of a task that is sealed meanwhile', async () => {
      await manifests.delete(TASK, () => true)
      const [first] = records as [ResultRecord]
      const sealing: ResultStore = {
        ...crashingStore(s3, new CrashPoint(100)),
        delete: async (key) => {
          const was = await s3.delete(key)
          await manifests.update(TASK, () => manifestOf(records))
          return was
        },
      }
      await results({ stores: async () => [sealing, spool] }).delete({ name: first.name })
      expect((await manifests.read(TASK))?.results.map(({ name }) => name)).toEqual(['b', 'c', 'd'])
    })

    it('does not count a tier that cannot delete, unless it is known to hold something', async () => {
      const { list: _, ...rest } = crashingStore(s3, new CrashPoint(100))
      const posting = (lists: boolean): ResultStore => ({
        ...rest,
        name: 'post only',
        tier: 'http',
        list: (taskId) => (lists ? s3.list(taskId) : refuse()),
        delete: async () => Promise.reject(new ConductorError('UNSUPPORTED', 'cannot delete')),
      })
      // biome-ignore lint/correctness/useYield: it fails before it could yield anything
      async function* refuse(): AsyncGenerator<never> {
        throw new ConductorError('UNSUPPORTED', 'cannot list')
      }
      const quiet = await results({ stores: async () => [s3, spool, posting(false)] }).delete({ name: 'a' })
      expect(quiet).toMatchObject({ deleted: [{ tiers: ['directory', 's3'] }], failed: [] })
      expect(quiet.unavailable).toMatchObject([{ store: 'post only' }, { store: 'post only' }])
      const loud = await results({ stores: async () => [s3, spool, posting(true)] }).delete({ name: 'b' })
      expect(loud).toMatchObject({
        deleted: [],
        failed: [{ problems: [{ error: { code: 'UNSUPPORTED' } }] }],
      })
    })

    it('rejects with the reason when cancelled, and harms nothing', async () => {
      const reason = new Error('stop')
      await expect(results().delete({}, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
      expect(await names(results())).toEqual(NAMES)
    })
  },
  choose(s3Servers(), last),
)
