import { execFileSync } from 'node:child_process'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { ConductorError } from '../../../src/errors.js'
import { DownloadError } from '../../../src/results/download-report.js'
import type { Result, TierProblem } from '../../../src/results/result.js'
import { taskSource } from '../../../src/results/result-source.js'
import { createResults, type ResultList, type Results } from '../../../src/results/results.js'
import { DirectoryFiles } from '../../../src/stores/directory-files.js'
import type { ResultStore } from '../../../src/stores/result-store.js'
import { type SpoolFiles, SpoolStore } from '../../../src/stores/spool-store.js'
import { plantInFolder } from '../../support/plant-spool.js'
import { readAll, recordFor, type SeedSpec } from '../../support/records.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'

/** A tier that answers nothing: faults are injected at our own port. */
function deadStore(name: string): ResultStore {
  const fail = async (): Promise<never> => {
    throw new ConductorError('UNAVAILABLE', `${name} is down`, { retryable: true })
  }
  return {
    name,
    tier: 's3',
    describe: fail,
    open: fail,
    delete: fail,
    list: () => ({ [Symbol.asyncIterator]: () => ({ next: fail }) }),
  }
}

/** A tier whose bodies break off after some bytes, in a way that may or may not pass. */
function breakingStore(inner: ResultStore, afterBytes: number, retryable = false): ResultStore {
  return {
    name: 'breaking',
    tier: 's3',
    list: (taskId, options) => inner.list(taskId, options),
    describe: (key, options) => inner.describe(key, options),
    delete: (key, options) => inner.delete(key, options),
    open: async (key, options) => {
      const body = await readAll(await inner.open(key, options))
      return new ReadableStream({
        start(controller) {
          controller.enqueue(body.subarray(0, afterBytes))
        },
        pull(controller) {
          controller.error(new ConductorError('UNAVAILABLE', 'connection reset', { retryable }))
        },
      })
    },
  }
}

/** A tier that tells what bytes must be only with them; counts how often it is asked otherwise. */
function tellingStore(
  inner: ResultStore,
  afterBytes = Number.POSITIVE_INFINITY,
): { store: ResultStore; asked: string[] } {
  const asked: string[] = []
  const breaking = breakingStore(inner, afterBytes)
  const open: ResultStore['open'] = async (key, options) => {
    asked.push(`open ${options?.offset ?? 0}`)
    return afterBytes === Number.POSITIVE_INFINITY ? inner.open(key, options) : breaking.open(key, options)
  }
  const store: ResultStore = {
    ...breaking,
    name: 'telling',
    async *list(taskId, options) {
      for await (const { key, size } of inner.list(taskId, options)) yield { key, size }
    },
    describe: async (key, options) => {
      asked.push('describe')
      return inner.describe(key, options)
    },
    open,
    openDescribed: async (key, options) => {
      const about = await inner.describe(key, options)
      if (about === undefined) throw new ConductorError('NOT_FOUND', `no ${key}`)
      return { about, body: await open(key, options) }
    },
  }
  return { store, asked }
}

describe('results over several tiers', () => {
  let first: TempDir
  let second: TempDir
  let problems: TierProblem[]
  beforeEach(async () => {
    first = await makeTempDir()
    second = await makeTempDir()
    problems = []
  })
  afterEach(async () => {
    await first[Symbol.asyncDispose]()
    await second[Symbol.asyncDispose]()
  })

  const spool = (dir: TempDir, name: string): SpoolStore =>
    new SpoolStore(name, 'directory', new DirectoryFiles(dir.path))
  const results = (...stores: ResultStore[]): Results =>
    createResults(
      taskSource({
        taskId: 'w',
        manifests: undefined,
        stores: async () => stores,
        onProblem: (problem) => problems.push(problem),
      }),
    )
  const plant = async (
    dir: TempDir,
    name: string,
    body: string,
    more: Partial<SeedSpec> = {},
  ): Promise<string> => {
    const record = recordFor({ taskId: 'w', name, ...more }, Buffer.from(body))
    await plantInFolder(dir.path, record, Buffer.from(body))
    return record.key
  }
  const tamper = (dir: TempDir, key: string, body: string): Promise<void> =>
    writeFile(join(dir.path, key), body)

  it('lists one entry per key with all its places', async () => {
    const both = await plant(first, 'both', 'x')
    await plant(second, 'both', 'x')
    const only = await plant(second, 'only', 'y', { metadata: { n: 1 } })
    const list = await results(spool(first, 'one'), spool(second, 'two')).list()
    expect(list.map(({ key, locations, size }) => ({ key, locations, size }))).toEqual([
      { key: both, locations: ['one', 'two'], size: 1 },
      { key: only, locations: ['two'], size: 1 },
    ])
    expect(list[1]?.metadata).toEqual({ n: 1 })
    expect(list.unavailable).toEqual([])
  })

  it('says where another result lies under the same key, and never takes one for the other', async () => {
    const key = await plant(first, 'r', 'one')
    await plant(second, 'r', 'another')
    const all = results(spool(first, 'one'), spool(second, 'two'))
    const found = await all.list({ strict: true })
    expect(found.map(({ locations }) => locations)).toEqual([['one']])
    const said = [{ key, store: 'two', error: { code: 'EXISTS' } }]
    expect(found.unavailable).toMatchObject(said)
    expect(problems.splice(0)).toMatchObject(said)
    expect(await (await all.latest('r'))?.text()).toBe('one')
    problems.length = 0
    expect((await all.get(key))?.locations).toEqual(['one'])
    expect(problems).toMatchObject(said)
    const other = results(spool(second, 'two'), spool(first, 'one'))
    expect(await (await other.get(key))?.text()).toBe('another')
  })

  it('reports a tier that cannot answer beside what the others said', async () => {
    const key = await plant(first, 'r', 'x')
    const some = results(deadStore('s3'), spool(first, 'one'))
    const list = await some.list()
    expect(list.map((result) => result.key)).toEqual([key])
    expect(list.unavailable).toMatchObject([{ store: 's3', error: { code: 'UNAVAILABLE' } }])
    await expect(some.list({ strict: true })).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true })
    const seen: string[] = []
    const iterate = async (): Promise<void> => {
      for await (const result of some) seen.push(result.key)
    }
    await expect(iterate()).rejects.toMatchObject({ code: 'UNAVAILABLE' })
    expect(seen).toEqual([key])
    // Neither the newest for certain, nor none for certain.
    for (const name of ['r', 'nothing']) {
      await expect(some.latest(name)).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true })
    }
  })

  it('rejects when no tier can answer', async () => {
    await expect(results(deadStore('s3')).list()).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  })

  it('gets one by key, and tells absent from unavailable', async () => {
    const key = await plant(first, 'r', 'x')
    expect((await results(spool(first, 'one')).get(key))?.key).toBe(key)
    const absent = 'w/20260114-120000-none'
    expect(await results(spool(first, 'one')).get(absent)).toBeUndefined()
    await expect(results(deadStore('s3'), spool(first, 'one')).get(absent)).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    })
    await expect(results(spool(first, 'one')).get('v/20260114-120000-r')).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    })
  })

  it('refuses bytes that are not those stored', async () => {
    const key = await plant(first, 'r', 'honest')
    await tamper(first, key, 'forged')
    const result = await results(spool(first, 'one')).get(key)
    await expect(result?.text()).rejects.toMatchObject({ code: 'INTEGRITY' })
    await expect(readAll(result?.stream() as ReadableStream<Uint8Array>)).rejects.toMatchObject({
      code: 'INTEGRITY',
    })
    await expect(result?.save(join(second.path, 'saved'))).rejects.toMatchObject({ code: 'INTEGRITY' })
    expect(await readdir(second.path)).toEqual([])
    expect(await result?.text({ verify: false })).toBe('forged')
  })

  it('refuses a truncated body', async () => {
    const key = await plant(first, 'r', 'honest')
    await tamper(first, key, 'hone')
    const result = await results(spool(first, 'one')).get(key)
    await expect(result?.text()).rejects.toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringMatching(/4 bytes, 6 were stored/),
    })
  })

  it('reads from the next tier when one is forged, and says so', async () => {
    const key = await plant(first, 'r', 'honest')
    await plant(second, 'r', 'honest')
    await tamper(first, key, 'forged')
    const result = await results(spool(first, 'one'), spool(second, 'two')).get(key)
    expect(await result?.text()).toBe('honest')
    expect(problems).toMatchObject([{ key, store: 'one', error: { code: 'INTEGRITY' } }])
  })

  it('streams on from the same byte of the next tier when one breaks off', async () => {
    const key = await plant(first, 'r', '0123456789')
    const store = spool(first, 'one')
    const result = await results(breakingStore(store, 4), store).get(key)
    expect((await readAll(result?.stream() as ReadableStream<Uint8Array>)).toString()).toBe('0123456789')
    expect(problems).toMatchObject([{ key, store: 'breaking', error: { code: 'UNAVAILABLE' } }])
  })

  it('links to no other result under its key, wherever that lies', async () => {
    const key = await plant(first, 'r', 'one')
    await plant(second, 'r', 'another')
    const other = Object.assign(spool(second, 'two'), { url: async () => 'https://another' })
    const context = {
      taskId: 'w',
      manifests: undefined,
      stores: async () => [spool(first, 'one')],
      recorded: async () => [other],
      onProblem: (problem: TierProblem) => problems.push(problem),
    }
    const result = await createResults(taskSource(context)).get(key)
    await expect(result?.url()).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    expect(problems).toMatchObject([{ key, store: 'two', error: { code: 'EXISTS' } }])
  })

  it('streams on from the next tier also where one just ends too early, and says so', async () => {
    const key = await plant(first, 'r', '0123456789')
    await plant(second, 'r', '0123456789')
    await tamper(first, key, '0123')
    const result = await results(spool(first, 'one'), spool(second, 'two')).get(key)
    expect((await readAll(result?.stream() as ReadableStream<Uint8Array>)).toString()).toBe('0123456789')
    expect(problems).toMatchObject([{ key, store: 'one', error: { code: 'INTEGRITY' } }])
    await tamper(second, key, '012345')
    await expect(readAll(result?.stream() as ReadableStream<Uint8Array>)).rejects.toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringMatching(/6 bytes, 10 were stored/),
    })
  })

  it('goes on from the same byte of the same tier when a connection breaks', async () => {
    const key = await plant(first, 'r', '0123456789')
    const result = await results(breakingStore(spool(first, 'one'), 3, true)).get(key)
    expect(await result?.text()).toBe('0123456789')
    await result?.save(join(second.path, 'saved'))
    expect(await readFile(join(second.path, 'saved'), 'utf8')).toBe('0123456789')
    expect(problems).toEqual([])
  })

  it('gives up on a tier that breaks again and again without getting on', async () => {
    const key = await plant(first, 'r', '0123456789')
    const result = await results(breakingStore(spool(first, 'one'), 1, true)).get(key)
    await expect(result?.text()).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true })
  })

  it('reads text, JSON and bytes, and refuses what is neither', async () => {
    const json = await plant(first, 'a.json', '{"n":1}')
    const binary = await plant(first, 'b.bin', 'x')
    await plantInFolder(
      first.path,
      recordFor({ taskId: 'w', name: 'c.bin' }, Buffer.from([0xff, 0xfe])),
      Buffer.from([0xff, 0xfe]),
    )
    const all = results(spool(first, 'one'))
    expect(await (await all.get(json))?.json()).toEqual({ n: 1 })
    const marked = await all.get(await plant(first, 'marked.json', '\ufeff{"n":2}'))
    expect(await marked?.json()).toEqual({ n: 2 })
    expect(await marked?.text()).toBe('\ufeff{"n":2}')
    await expect((await all.get(binary))?.json()).rejects.toMatchObject({ code: 'INTEGRITY' })
    await expect((await all.latest('c.bin'))?.text()).rejects.toMatchObject({ code: 'INTEGRITY' })
    await expect((await all.get(json))?.bytes({ maxBytes: 6 })).rejects.toMatchObject({ code: 'TOO_LARGE' })
  })

  it('narrows by name, also of archives, and by time', async () => {
    const a = await plant(first, 'checkpoint-1.json', 'x', { timestamp: '20260114-120000' })
    const b = await plant(first, 'checkpoint-2.json', 'x', { timestamp: '20260114-120001' })
    const c = await plant(first, 'plots.tar.gz', 'x', { timestamp: '20260114-120002', archive: 'tar.gz' })
    const all = results(spool(first, 'one'))
    const keys = async (some: Results): Promise<string[]> => (await some.list()).map(({ key }) => key)
    expect(await keys(all({ name: 'checkpoint-*' }))).toEqual([a, b])
    expect(await keys(all({ name: 'plots' }))).toEqual([c])
    expect(await keys(all({ since: new Date('2026-01-14T12:00:01Z') }))).toEqual([b, c])
    expect(await keys(all({ name: 'checkpoint-*' })({ until: new Date('2026-01-14T12:00:01Z') }))).toEqual([
      a,
    ])
    expect((await all.latest('checkpoint-*'))?.key).toBe(b)
    expect((await all.latest())?.key).toBe(c)
    expect(await all.latest('nothing')).toBeUndefined()
    expect((await all.list({ limit: 2 })).map(({ key }) => key)).toEqual([a, b])
    expect(() => all({ nam: 'x' } as never)).toThrow(/unknown option "nam"/)
  })

  it('narrows by metadata and by tier', async () => {
    const done = await plant(first, 'a', 'x', { metadata: { status: 'done', tags: ['x', 'y'], n: 5 } })
    const failed = await plant(second, 'b', 'x', { metadata: { status: 'failed', n: 7 } })
    const all = results(spool(first, 'one'), spool(second, 'two'))
    const keys = async (some: Results): Promise<string[]> =>
      (await some.list({ metadata: false })).map(({ key }) => key)
    expect(await keys(all({ metadata: { status: 'done' } }))).toEqual([done])
    expect(await keys(all({ metadata: { tags: ['x', 'y'], n: 5 } }))).toEqual([done])
    expect(await keys(all({ metadata: { toString: null } }))).toEqual([])
    expect(await keys(all({ metadata: ({ n }) => Number(n) > 6 }))).toEqual([failed])
    expect(await keys(all({ tier: 'directory' }))).toEqual([done, failed])
    expect(await keys(all({ tier: 's3' }))).toEqual([])
    expect(await all({ metadata: { status: 'failed' } }).get(done)).toBeUndefined()
    expect((await all({ metadata: { status: 'done' } }).latest())?.key).toBe(done)
    expect(() => all({ metadata: ['x'] as never })).toThrow(/metadata: must be an object or a function/)
  })

  it('downloads everything, verified, and nothing half', async () => {
    await plant(first, 'a', 'one')
    const bad = await plant(first, 'b', 'two')
    const target = join(second.path, 'deep', 'folder')
    const progress: number[] = []
    const all = results(spool(first, 'one'))
    const { saved: files } = await all.download(target, {
      onProgress: ({ doneBytes }) => progress.push(doneBytes),
    })
    expect(await Promise.all(files.map(({ path }) => readFile(path, 'utf8')))).toEqual(['one', 'two'])
    expect(progress.at(-1)).toBe(6)
    await tamper(first, bad, 'owt')
    const again = join(second.path, 'again')
    await mkdir(again)
    await expect(all.download(again)).rejects.toMatchObject({ code: 'INTEGRITY' })
    expect((await readdir(again)).filter((name) => name.endsWith('-b') || name.endsWith('.part'))).toEqual([])
  })

  it('downloads all of those whose names a file system may take for the same one', async () => {
    const names = ['A.txt', 'a.txt', 'f\u00fc', 'fu\u0308', 'out', 'out.tar.gz']
    for (const name of names) await plant(first, name, `in ${name}`)
    const target = join(second.path, 'target')
    const all = results(spool(first, 'one'))
    // What is there under another spelling is not replaced either.
    const { saved: alone } = await all({ name: 'a.txt' }).download(target)
    const { saved, skipped } = await all.download(target, { extract: true })
    expect(skipped).toEqual(alone)
    const files = await readdir(target)
    expect(new Set(files.map((file) => file.normalize('NFC').toLowerCase())).size).toBe(files.length)
    for (const { key, path } of [...alone, ...saved]) {
      expect(await readFile(path, 'utf8')).toBe(`in ${key.slice('w/20260114-120000-'.length)}`)
    }
    expect([...saved, ...alone]).toHaveLength(names.length)
    expect((await all.download(target, { extract: true })).skipped).toHaveLength(names.length)
  })

  it('unpacks what it downloads once, and takes nobody else’s folder for that', async () => {
    const target = join(second.path, 'target')
    const folder = join(target, '20260114-120000-plots')
    const of = async (taskId: string): Promise<Results> => {
      await writeFile(join(second.path, 'f'), `of ${taskId}`)
      const body = execFileSync('tar', ['-czf', '-', '-C', second.path, 'f'])
      await plantInFolder(
        first.path,
        recordFor({ taskId, name: 'plots.tar.gz', archive: 'tar.gz' }, body),
        body,
      )
      const stores = async (): Promise<ResultStore[]> => [spool(first, 'one')]
      return createResults(taskSource({ taskId, manifests: undefined, stores }))
    }
    const [a, b] = [await of('a'), await of('b')]
    const extract = true
    const taken = {
      code: 'EXISTS',
      message: expect.stringMatching(/^1 result.* exists, and no download has unpacked/),
    }
    await mkdir(join(folder, 'mine'), { recursive: true })
    await expect(a.download(target, { extract })).rejects.toMatchObject(taken)
    expect(await readdir(folder)).toEqual(['mine'])
    // One with nothing in it is as good as none.
    await rm(join(folder, 'mine'), { recursive: true })
    expect((await a.download(target, { extract })).saved).toMatchObject([{ path: folder }])
    expect((await a.download(target, { extract })).skipped).toMatchObject([{ path: folder }])
    await expect(b.download(target, { extract })).rejects.toMatchObject(taken)
    expect(await readFile(join(folder, 'f'), 'utf8')).toBe('of a')
    await rm(folder, { recursive: true })
    expect((await b.download(target, { extract })).saved).toHaveLength(1)
    await expect(a.download(target, { extract })).rejects.toMatchObject(taken)
    expect(await readFile(join(folder, 'f'), 'utf8')).toBe('of b')
  })

  it('checks JSON with a schema of any make, and says what is wrong', async () => {
    const key = await plant(first, 'r.json', '{"n":1,"list":[{"x":"y"}]}')
    const result = (await results(spool(first, 'one')).get(key)) as Result
    const shape = z.object({ n: z.number(), list: z.array(z.object({ x: z.string() })) })
    const value = await result.json(shape)
    expectTypeOf(value).toEqualTypeOf<{ n: number; list: { x: string }[] }>()
    expect(value.list[0]?.x).toBe('y')
    const wrong = z.object({ list: z.array(z.object({ x: z.number() })) })
    await expect(result.json(wrong, { maxBytes: 100 })).rejects.toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringMatching(/^w\/20260114-120000-r\.json is not what it should be: list\.0\.x: /),
    })
    const parser = { parse: (found: unknown): number => (found as { n: number }).n }
    expectTypeOf(await result.json(parser)).toEqualTypeOf<number>()
    const thrower = {
      parse: (): never => {
        throw new Error('not today')
      },
    }
    await expect(result.json(thrower)).rejects.toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringMatching(/not today/),
    })
    expectTypeOf(await result.json()).toEqualTypeOf<unknown>()
    await expect(result.json({ maxBytes: 1 })).rejects.toMatchObject({ code: 'TOO_LARGE' })
  })

  it('blames no tier for a place that is taken, nor for being cancelled', async () => {
    const key = await plant(first, 'plots.tar.gz', 'never read', { archive: 'tar.gz' })
    const result = await results(spool(first, 'one')).get(key)
    const signal = AbortSignal.abort(new Error('no longer wanted'))
    const target = join(second.path, 'plots')
    await expect(result?.extract(target, { signal })).rejects.toThrow('no longer wanted')
    await writeFile(target, 'mine')
    await expect(result?.extract(target)).rejects.toMatchObject({ code: 'EXISTS' })
    expect(problems).toEqual([])
  })

  it('reads from a place that was not asked for it, or did not have it yet, when the others fail', async () => {
    const key = await plant(first, 'r', 'honest')
    await plant(second, 'r', 'honest')
    const volume = spool(second, 'volume')
    const context = {
      taskId: 'w',
      manifests: undefined,
      stores: async () => [spool(first, 'one')],
      recorded: async () => [volume],
      onProblem: (problem: TierProblem) => problems.push(problem),
    }
    const result = await createResults(taskSource(context)).get(key)
    await tamper(first, key, 'forged')
    expect(result?.locations).toEqual(['one'])
    expect(await result?.text()).toBe('honest')
    await result?.save(join(second.path, 'saved'))
    expect(await readFile(join(second.path, 'saved'), 'utf8')).toBe('honest')
    await rm(join(first.path, key))
    expect((await readAll(result?.stream() as ReadableStream<Uint8Array>)).toString()).toBe('honest')
    await plant(first, 'r', 'honest')
    await tamper(first, key, 'forged')
    expect(new Set(problems.map(({ store }) => store))).toEqual(new Set(['one']))
    const lastResort = Object.assign(spool(second, 'two'), { lastResort: true })
    const late = await results(spool(first, 'one'), lastResort).get(key)
    expect(late?.locations).toEqual(['one'])
    expect(await late?.text()).toBe('honest')
    // Where nobody else has it either, it says what the first one was like.
    await rm(join(second.path, 'w'), { recursive: true })
    await expect(result?.text()).rejects.toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringMatching(/from one is not/),
    })
  })

  it('goes on past what cannot be downloaded, and says what that is', async () => {
    const good = await plant(first, 'a', 'one')
    const bad = await plant(first, 'b', 'two')
    const last = await plant(first, 'c', 'three')
    await tamper(first, bad, 'owt')
    const error = await results(spool(first, 'one'))
      .download(second.path, { concurrency: 1 })
      .catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(DownloadError)
    const { report } = error as DownloadError
    expect(report.saved.map(({ key }) => key)).toEqual([good, last])
    expect(report.failed).toMatchObject([{ key: bad, error: { code: 'INTEGRITY' } }])
    expect((await readdir(second.path)).sort()).toEqual(['20260114-120000-a', '20260114-120000-c'])
  })

  it('reads no more records than fit into memory, and says so', async () => {
    const text = ' '.repeat(4_000_000)
    let read = 0
    const files: SpoolFiles = {
      async *readRecords() {
        for (; ; read++) yield { fileName: `20260114-120000-${read}`, text }
      },
      readRecord: async () => undefined,
      open: async () => Promise.reject(new ConductorError('NOT_FOUND', 'no')),
      delete: async () => false,
    }
    const key = await plant(first, 'a', 'one')
    const list = await results(new SpoolStore('full', 'sandbox', files), spool(first, 'one')).list()
    expect(list.map((result) => result.key)).toEqual([key])
    expect(list.unavailable).toMatchObject([{ store: 'full', error: { code: 'TOO_LARGE' } }])
    expect(read).toBeLessThan(40)
  })

  it('takes what bytes must be from the tier that gives them, and holds every tier to it', async () => {
    await plant(first, 'a', 'honest')
    const bad = await plant(first, 'b', '0123456789')
    await plant(second, 'b', '0123456789')
    await tamper(first, bad, '0123456780')
    const { store, asked } = tellingStore(spool(first, 'one'))
    const target = join(second.path, 'target')
    const { store: other } = tellingStore(spool(second, 'two'))
    const { saved } = await results(store, { ...other, name: 'two' }).download(target)
    expect(asked).toEqual(['open 0', 'open 0'])
    expect(await Promise.all(saved.map(({ path }) => readFile(path, 'utf8')))).toEqual([
      'honest',
      '0123456789',
    ])
    expect(problems).toMatchObject([{ key: bad, store: 'telling', error: { code: 'INTEGRITY' } }])
    expect(await readdir(target)).toEqual(['20260114-120000-a', '20260114-120000-b'])
  })

  it('begins with the next tier when one does not even open, and goes on with what that left', async () => {
    const key = await plant(first, 'r', '0123456789')
    const dead = { ...deadStore('dead'), openDescribed: deadStore('dead').open } as unknown as ResultStore
    const { store, asked } = tellingStore(spool(first, 'one'), 4)
    const target = join(second.path, 'target')
    const [result] = (await results(store).list({ metadata: false })) as ResultList
    const path = join(target, 'file')
    await mkdir(target)
    await expect(result?.save(path)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
    expect(asked.splice(0)).toEqual(['open 0'])
    const { store: whole, asked: later } = tellingStore(spool(first, 'one'))
    const both: ResultStore = { ...dead, list: (taskId) => whole.list(taskId) }
    const [again] = (await results(both, whole).list({ metadata: false })) as ResultList
    await again?.save(path)
    // What is there in part can be gone on with only by who knows what it must be.
    expect(later).toEqual(['describe', 'open 4'])
    expect(await readFile(path, 'utf8')).toBe('0123456789')
    const [fresh] = (await results(both, whole).list({ metadata: false })) as ResultList
    await fresh?.save(join(target, 'other'))
    expect(later).toEqual(['describe', 'open 4', 'open 0'])
    expect(problems.map(({ store: name }) => name)).toContain('dead')
    expect(again?.key).toBe(key)
  })

  it('knows the newest of those that came within a second by when they were stored', async () => {
    for (const n of [8, 9, 10, 11]) {
      const record = recordFor({ taskId: 'w', name: `checkpoint-${n}` }, Buffer.from(`${n}`))
      const created_at = `2026-01-14T12:00:00.${100 + n}Z`
      await plantInFolder(first.path, { ...record, created_at }, Buffer.from(`${n}`))
    }
    const all = results(spool(first, 'one'))
    expect((await all.latest('checkpoint-*'))?.name).toBe('checkpoint-11')
    await plant(first, 'other', 'x', { timestamp: '20260114-120001' })
    expect((await all.latest())?.name).toBe('other')
    expect(await all.latest('nothing')).toBeUndefined()
  })

  it('makes no link where no tier has any', async () => {
    const key = await plant(first, 'a', 'one')
    const result = await results(spool(first, 'one')).get(key)
    await expect(result?.url()).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  })
})
