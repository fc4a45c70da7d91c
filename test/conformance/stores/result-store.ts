import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { taskSource } from '../../../src/results/result-source.js'
import { createResults } from '../../../src/results/results.js'
import type { ResultStore } from '../../../src/stores/result-store.js'
import { collect, readAll, recordFor, type SeedSpec } from '../../support/records.js'

/** One store with a way to plant results in it that does not use the store. */
export interface StoreHarness extends AsyncDisposable {
  readonly store: ResultStore
  /** Plants results as a persister would have left them. */
  seed(results: readonly { readonly record: ResultRecord; readonly body: Uint8Array }[]): Promise<void>
  /** False where everything comes in one answer, however much there is, and where pages are left to another. @default true */
  readonly listsInPages?: boolean
  /** Plants results past every check that the place itself makes, as a hostile worker with its own access could. */
  forge(results: readonly { readonly record: ResultRecord; readonly body: Uint8Array }[]): Promise<void>
  /** Makes the record of a result that is there so large, in bytes, that nobody should read it. */
  inflateRecord(record: ResultRecord, sizeBytes: number): Promise<void>
  /** Plants things in a task's place that are no results of it. */
  seedJunk(taskId: string): Promise<void>
}

const text = (value: string): Buffer => Buffer.from(value)

/** The contract that every `ResultStore` keeps. One call per kind of store. */
export function describeResultStore(name: string, setup: () => Promise<StoreHarness>): void {
  describe(`ResultStore: ${name}`, () => {
    let harness: StoreHarness
    let store: ResultStore
    beforeAll(async () => {
      harness = await setup()
      store = harness.store
    })
    afterAll(async () => {
      await harness?.[Symbol.asyncDispose]()
    })

    const seed = async (spec: SeedSpec, body: Uint8Array): Promise<ResultRecord> => {
      const record = recordFor(spec, body)
      await harness.seed([{ record, body }])
      return record
    }
    const keys = async (taskId: string): Promise<string[]> =>
      (await collect(store.list(taskId))).map(({ key }) => key)

    it('lists nothing for a task that left nothing', async () => {
      expect(await keys('nobody')).toEqual([])
    })

    it('tells absent from unavailable', async () => {
      await seed({ taskId: 'absent', name: 'there' }, text('x'))
      const key = 'absent/20260114-120000-elsewhere'
      expect(await store.describe(key)).toBeUndefined()
      await expect(store.open(key)).rejects.toMatchObject({ code: 'NOT_FOUND', retryable: false })
    })

    it('describes a result as the worker stored it', async () => {
      const metadata = { status: 'done', nested: { list: [1, null, 'ü"\n'] }, 日本: '😀' }
      const record = await seed(
        {
          taskId: 'described',
          name: 'r.tar.gz',
          metadata,
          contentType: 'application/gzip',
          archive: 'tar.gz',
        },
        text('hello'),
      )
      expect(await store.describe(record.key)).toEqual({
        key: record.key,
        size: 5,
        sha256: record.sha256,
        contentType: 'application/gzip',
        metadata,
        createdAt: new Date(record.created_at),
        archive: 'tar.gz',
        problem: undefined,
      })
    })

    it('describes metadata far beyond what an S3 header holds', async () => {
      const metadata = { long: 'ä'.repeat(50_000) }
      const record = await seed({ taskId: 'large-metadata', name: 'r' }, text('x'))
      const large = recordFor({ taskId: 'large-metadata', name: 'large', metadata }, text('y'))
      await harness.seed([{ record: large, body: text('y') }])
      expect((await store.describe(large.key))?.metadata).toEqual(metadata)
      expect(await keys('large-metadata')).toEqual([large.key, record.key])
    })

    it.each([
      ['empty', Buffer.alloc(0)],
      ['binary', randomBytes(3_000_001)],
    ])('gives back an %s body byte for byte', async (what, body) => {
      const { key } = await seed({ taskId: 'bodies', name: what }, body)
      expect((await store.describe(key))?.size).toBe(body.length)
      expect((await readAll(await store.open(key))).equals(body)).toBe(true)
    })

    it('goes on from an offset', async () => {
      const { key } = await seed({ taskId: 'offsets', name: 'r' }, text('0123456789'))
      expect((await readAll(await store.open(key, { offset: 3 }))).toString()).toBe('3456789')
    })

    it.each([
      'a b',
      'it\'s "quoted" & <odd> + 100%',
      '報告 😀.pdf',
      '-n',
      '~',
      '$(id)',
      '*',
      'x'.repeat(255),
    ])('takes the name %j', async (odd) => {
      const { key } = await seed({ taskId: 'odd-names', name: odd }, text(odd))
      expect(await keys('odd-names')).toContain(key)
      expect((await readAll(await store.open(key))).toString()).toBe(odd)
    })

    it('lists in the byte order of keys, without sibling prefixes', async () => {
      const names = ['b', 'a', '\uff5e', '\u{1f600}', 'Z']
      for (const name of names) await seed({ taskId: 'order', name }, text(name))
      for (const taskId of ['orde', 'order1', 'order-1', 'order.'])
        await seed({ taskId, name: 'a' }, text('x'))
      const expected = ['Z', 'a', 'b', '\uff5e', '\u{1f600}'].map((name) => `order/20260114-120000-${name}`)
      expect(await keys('order')).toEqual(expected)
      const later = await collect(store.list('order', { startAfter: expected[1] }))
      expect(later.map(({ key }) => key)).toEqual(expected.slice(2))
    })

    it('lists more than a page', async () => {
      const length = harness.listsInPages === false ? 203 : 1_203
      const many = Array.from({ length }, (_, i) => {
        const body = text(`${i}`)
        return { record: recordFor({ taskId: 'many', name: `r-${String(i).padStart(5, '0')}` }, body), body }
      })
      await harness.seed(many)
      const listed = await collect(store.list('many'))
      expect(listed.map(({ key }) => key)).toEqual(many.map(({ record }) => record.key))
      expect(listed.map(({ size }) => size)).toEqual(many.map(({ record }) => record.size))
    })

    it('passes over what is no result', async () => {
      const { key } = await seed({ taskId: 'junk', name: 'real' }, text('x'))
      await harness.seedJunk('junk')
      expect(await keys('junk')).toEqual([key])
    })

    it('deletes one result with all that belongs to it, and no other', async () => {
      const metadata = { long: 'ä'.repeat(50_000) }
      const gone = await seed({ taskId: 'deleted', name: 'gone', metadata }, text('x'))
      const odd = await seed({ taskId: 'deleted', name: `it's "$(odd)" 😀` }, text('y'))
      const kept = await seed({ taskId: 'deleted', name: 'kept' }, text('z'))
      expect(await store.delete(gone.key)).toBe(true)
      expect(await store.delete(odd.key)).toBe(true)
      expect(await keys('deleted')).toEqual([kept.key])
      expect(await store.describe(gone.key)).toBeUndefined()
      await expect(store.open(gone.key)).rejects.toMatchObject({ code: 'NOT_FOUND' })
      expect(await store.delete(gone.key)).toBe(false)
      expect(await store.delete('nobody/20260114-120000-x')).toBe(false)
      // Nothing of it stays behind for a later one of that name to inherit.
      const again = await seed({ taskId: 'deleted', name: 'gone' }, text('again'))
      expect(again.key).toBe(gone.key)
      expect((await store.describe(again.key))?.metadata).toEqual({})
    })

    it('shows a result whose digest lies, and lets nobody take its bytes for what was stored', async () => {
      const honest = await seed({ taskId: 'lying', name: 'honest' }, text('x'))
      const record = recordFor({ taskId: 'lying', name: 'liar' }, text('what was said'))
      await harness.forge([{ record, body: text('what there is') }])
      const results = createResults(
        taskSource({ taskId: 'lying', manifests: undefined, stores: async () => [store] }),
      )
      const list = await results.list()
      expect(list.map(({ key }) => key)).toEqual([honest.key, record.key])
      expect(list.unavailable).toEqual([])
      await expect(list[1]?.text()).rejects.toMatchObject({ code: 'INTEGRITY' })
      expect(await list[0]?.text()).toBe('x')
    })

    it('passes over a record of 100 MB', async () => {
      const metadata = { long: 'x'.repeat(5000) }
      const small = await seed({ taskId: 'bloated', name: 'small', metadata }, text('x'))
      const large = await seed({ taskId: 'bloated', name: 'large', metadata }, text('y'))
      await harness.inflateRecord(large, 100_000_000)
      const results = createResults(
        taskSource({ taskId: 'bloated', manifests: undefined, stores: async () => [store] }),
      )
      const list = await results.list()
      expect(list.map(({ key }) => key)).toContain(small.key)
      expect(list.find(({ key }) => key === small.key)?.metadata).toEqual(metadata)
      // What has the large one's bytes may show it, but never with what its record says.
      const shown = list.find(({ key }) => key === large.key)
      if (shown?.isDescribed === true) expect(shown.metadata).toEqual({})
    })

    it('takes names that turn the text around, and passes over those with control characters', async () => {
      const bidi = await seed({ taskId: 'tricky', name: 'evil\u202etxt.exe' }, text('x'))
      const names = ['bell\u0007', 'line\nbreak', 'escape\u001b[2J', 'delete\u007f', 'c1\u0085']
      await harness.forge(
        names.map((name) => {
          const record = recordFor({ taskId: 'tricky', name: 'x' }, text('x'))
          return { record: { ...record, name, key: `tricky/${record.timestamp}-${name}` }, body: text('x') }
        }),
      )
      expect(await keys('tricky')).toEqual([bidi.key])
      expect((await readAll(await store.open(bidi.key))).toString()).toBe('x')
      for (const name of names) {
        const key = `tricky/20260114-120000-${name}`
        await expect(store.describe(key)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
      }
    })

    it('passes over a record that speaks of another task, wherever it lies', async () => {
      const own = await seed({ taskId: 'mine', name: 'own' }, text('x'))
      const theirs = recordFor({ taskId: 'theirs', name: 'stolen' }, text('y'))
      await harness.forge([{ record: { ...theirs, task_id: 'mine' }, body: text('y') }])
      await harness.seedJunk('mine')
      expect(await keys('mine')).toEqual([own.key])
    })

    it('refuses keys that are none', async () => {
      for (const key of ['junk/../x', '../20260114-120000-x', 'junk/20260114-120000-a/b', '']) {
        await expect(store.open(key)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
        await expect(store.describe(key)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
        await expect(store.delete(key)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
      }
      await expect(collect(store.list('../x'))).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    })

    it('rejects with the reason when aborted', async () => {
      const { key } = await seed({ taskId: 'aborted', name: 'r' }, text('x'))
      const reason = new Error('stop')
      const signal = AbortSignal.abort(reason)
      await expect(store.describe(key, { signal })).rejects.toBe(reason)
      await expect(store.open(key, { signal })).rejects.toBe(reason)
      await expect(store.delete(key, { signal })).rejects.toBe(reason)
      expect(await keys('aborted')).toContain(key)
      await expect(collect(store.list('aborted', { signal }))).rejects.toBe(reason)
    })

    it('rejects with the reason when aborted in the middle of a body', async () => {
      const { key } = await seed({ taskId: 'aborted', name: 'large' }, randomBytes(20_000_000))
      const stopping = new AbortController()
      const reason = new Error('stop')
      const reader = (await store.open(key, { signal: stopping.signal })).getReader()
      await reader.read()
      stopping.abort(reason)
      await expect(
        (async () => {
          while (!(await reader.read()).done);
        })(),
      ).rejects.toBe(reason)
    })

    it('lets a reader stop early', async () => {
      const { key } = await seed({ taskId: 'stopped', name: 'large' }, randomBytes(20_000_000))
      for (let i = 0; i < 20; i++) {
        const reader = (await store.open(key)).getReader()
        await reader.read()
        await reader.cancel()
      }
      expect((await store.describe(key))?.size).toBe(20_000_000)
    })
  })
}
