import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { ResultRecord } from '../../../src/protocol/record.js'
import type { TierProblem } from '../../../src/results/read-tiers.js'
import type { Result } from '../../../src/results/result.js'
import { taskSource } from '../../../src/results/result-source.js'
import { createResults, type Results } from '../../../src/results/results.js'
import { HttpStore } from '../../../src/stores/http/http-store.js'
import type { ResultStore } from '../../../src/stores/result-store.js'
import { recordFor } from '../../support/records.js'
import { type ChildScript, startChildScript } from '../../support/s3/child-script.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'
import { type SlowEndpoint, startSlowEndpoint } from './slow-endpoint.js'

const body = randomBytes(3_000_000)
const record = recordFor({ taskId: 'w', name: 'big' }, body)

/** Saves the one result of an endpoint, telling how far it is. */
const saver = `
import { taskSource } from '../../../src/results/result-source.js'
import { createResults } from '../../../src/results/results.js'
import { HttpStore } from '../../../src/stores/http/http-store.js'

const [endpoint, key, path] = process.argv.slice(2)
const store = new HttpStore({ endpoint })
const results = createResults(taskSource({ taskId: 'w', manifests: undefined, stores: async () => [store] }))
const result = await results.get(key)
await result.save(path, { onBytes: (bytes) => console.log(JSON.stringify({ bytes })) })
console.log(JSON.stringify({ done: true }))
`

describe('a save that breaks off', () => {
  let dir: TempDir
  let endpoint: SlowEndpoint
  let path: string
  let problems: TierProblem[]
  beforeEach(async () => {
    dir = await makeTempDir()
    endpoint = await startSlowEndpoint(record, body)
    path = join(dir.path, 'saved')
    problems = []
  })
  afterEach(async () => {
    await endpoint[Symbol.asyncDispose]()
    await dir[Symbol.asyncDispose]()
  })

  const results = (...stores: ResultStore[]): Results =>
    createResults(
      taskSource({
        taskId: 'w',
        manifests: undefined,
        stores: async () => stores,
        onProblem: (problem) => problems.push(problem),
      }),
    )
  const find = async (...stores: ResultStore[]): Promise<Result> => {
    const all = stores.length > 0 ? stores : [new HttpStore({ endpoint: endpoint.url })]
    return (await results(...all).get(record.key)) as Result
  }
  const saved = async (): Promise<boolean> => (await readFile(path)).equals(body)
  const files = (): Promise<string[]> => readdir(dir.path)
  const startSaver = (): Promise<ChildScript> => startChildScript(saver, [endpoint.url, record.key, path])
  const untilBytes = async (child: ChildScript, wanted: number): Promise<void> => {
    for (let bytes = 0; bytes < wanted; ) {
      bytes = ((await child.nextMessage()) as { bytes: number }).bytes
    }
    // Told of as they come, and on the disk a moment later.
    const folder = dirname(path)
    await vi.waitFor(async () => {
      const sizes = (await readdir(folder)).map(async (name) => (await stat(join(folder, name))).size)
      expect(await Promise.all(sizes)).toContain(wanted)
    }, 20_000)
  }

  it('is gone on with by another process after a SIGKILL', async () => {
    endpoint.fault = (n) => (n === 0 ? { afterBytes: 2_000_000, ending: 'hang' } : undefined)
    await using child = await startSaver()
    await untilBytes(child, 2_000_000)
    await child.kill()
    expect(await files()).toEqual([expect.stringMatching(/^\..*\.part$/)])
    await (await find()).save(path)
    expect(await saved()).toBe(true)
    expect(endpoint.offsets).toEqual([0, 2_000_000])
    expect(await files()).toEqual(['saved'])
  })

  it('is not mixed with that of another process that is at work on it', async () => {
    endpoint.fault = (n) => (n === 0 ? { afterBytes: 2_000_000, ending: 'hang' } : undefined)
    await using child = await startSaver()
    await untilBytes(child, 2_000_000)
    await Promise.all([
      find().then((result) => result.save(path)),
      find().then((result) => result.save(path)),
    ])
    expect(await saved()).toBe(true)
    expect(endpoint.offsets).toEqual([0, 0, 0])
    // The other's is its own, until it ends.
    expect(await files()).toHaveLength(2)
    await child.kill()
    await (await find()).save(path)
    expect(await files()).toEqual(['saved'])
    expect(endpoint.offsets).toEqual([0, 0, 0, 2_000_000])
  })

  it('goes on at once where a connection broke, and later where it was cancelled', async () => {
    endpoint.fault = (n) =>
      n === 0
        ? { afterBytes: 1_000_000, ending: 'break' }
        : n === 1
          ? { afterBytes: 500_000, ending: 'hang' }
          : undefined
    const result = await find()
    const stopping = new AbortController()
    const reason = new Error('enough')
    const onBytes = (bytes: number): void => {
      if (endpoint.offsets.length === 2) stopping.abort(reason)
      stoppedAt = bytes
    }
    let stoppedAt = 0
    await expect(result.save(path, { signal: stopping.signal, onBytes })).rejects.toBe(reason)
    const told: number[] = []
    await result.save(path, { onBytes: (bytes) => told.push(bytes) })
    expect(endpoint.offsets).toHaveLength(3)
    expect(told[0]).toBe(stoppedAt)
    expect(endpoint.offsets.slice(1)).toEqual([expect.any(Number), stoppedAt])
    expect(endpoint.offsets[1]).toBeGreaterThan(0)
    expect(await saved()).toBe(true)
    expect(problems).toEqual([])
  })

  it('lets go of a tier that gives nothing more as soon as nobody wants it', async () => {
    endpoint.fault = () => ({ afterBytes: 500_000, ending: 'hang' })
    const reader = (await find()).stream().getReader()
    for (let bytes = 0; bytes < 500_000; ) bytes += (await reader.read()).value?.length ?? 0
    const waiting = reader.read()
    // So that it has come as far as to the tier.
    await new Promise((resolve) => setImmediate(resolve))
    await reader.cancel('enough')
    expect(await waiting).toEqual({ done: true, value: undefined })
    expect(endpoint.offsets).toEqual([0])
    expect(problems).toEqual([])
  })

  it('throws away what is of another result, damaged, or longer than it can be', async () => {
    const leave = async (): Promise<string> => {
      endpoint.offsets.length = 0
      endpoint.fault = (n) => (n === 0 ? { afterBytes: 1_000_000, ending: 'hang' } : undefined)
      await using child = await startSaver()
      await untilBytes(child, 1_000_000)
      await child.kill()
      const [name = ''] = (await files()).filter((file) => file.endsWith('.part'))
      return join(dir.path, name)
    }
    const damaged = await leave()
    await writeFile(damaged, randomBytes(1_000_000))
    await (await find()).save(path)
    expect(await saved()).toBe(true)
    expect(endpoint.offsets).toEqual([0, 1_000_000, 0])
    expect(problems).toMatchObject([{ error: { code: 'INTEGRITY' } }])

    const long = await leave()
    await writeFile(long, randomBytes(4_000_000))
    await (await find()).save(path)
    expect(await saved()).toBe(true)
    expect(endpoint.offsets).toEqual([0, 0])

    await leave()
    const other = Buffer.from('another result')
    await using elsewhere = await startSlowEndpoint(otherRecord(other), other)
    const store = new HttpStore({ endpoint: elsewhere.url })
    await (await results(store).get(otherRecord(other).key))?.save(path)
    expect(await readFile(path)).toEqual(other)
    expect(await files()).toEqual(['saved'])
  })

  it('goes on with another tier, and starts over there when the bytes do not fit', async () => {
    await using liar = await startSlowEndpoint(record, Buffer.alloc(body.length, 1))
    liar.fault = (n) => (n === 0 ? { afterBytes: 700_000, ending: 'break' } : undefined)
    const stores = [liar, endpoint].map(({ url }) => new HttpStore({ endpoint: url }))
    await (await find(...stores)).save(path)
    expect(await saved()).toBe(true)
    expect(liar.offsets).toEqual([0, expect.any(Number)])
    expect(endpoint.offsets).toEqual([0])

    endpoint.offsets.length = 0
    liar.fault = () => ({ afterBytes: 10, ending: 'break' })
    await (await find(...stores)).save(path)
    expect(await saved()).toBe(true)
    const [first, ...others] = endpoint.offsets
    expect(first).toBeGreaterThan(0)
    expect(others).toEqual([0])
  })

  it('keeps nothing of what turned out wrong', async () => {
    endpoint.body = Buffer.alloc(body.length, 1)
    await expect((await find()).save(path)).rejects.toMatchObject({ code: 'INTEGRITY' })
    expect(await files()).toEqual([])
  })

  it('does not hang, and says so, when a tier never gets anywhere', async () => {
    endpoint.fault = () => ({ afterBytes: 10, ending: 'break' })
    await expect((await find()).save(path)).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true })
    expect(endpoint.offsets).toHaveLength(5)
    expect(problems).toHaveLength(1)
  })

  it('is what a download goes on with, past what is there already', async () => {
    const target = join(dir.path, 'all')
    await mkdir(target)
    endpoint.fault = (n) => (n === 0 ? { afterBytes: 2_000_000, ending: 'hang' } : undefined)
    path = join(target, '20260114-120000-big')
    await using child = await startSaver()
    await untilBytes(child, 2_000_000)
    await child.kill()
    const listing: ResultStore = listed(new HttpStore({ endpoint: endpoint.url }))
    const report = await results(listing).download(target)
    expect(report).toMatchObject({ saved: [{ key: record.key, path }], skipped: [], failed: [] })
    expect(endpoint.offsets).toEqual([0, 2_000_000])
    expect(await results(listing).download(target)).toMatchObject({ saved: [], skipped: [{ path }] })
    await writeFile(path, randomBytes(body.length))
    expect(await results(listing).download(target)).toMatchObject({ saved: [{ path }], skipped: [] })
    expect(await saved()).toBe(true)
    expect(await readdir(target)).toEqual(['20260114-120000-big'])
  })
})

function otherRecord(other: Buffer): ResultRecord {
  return recordFor({ taskId: 'w', name: 'other' }, other)
}

/** The endpoint of these tests cannot list. */
function listed(store: HttpStore): ResultStore {
  return {
    name: store.name,
    tier: store.tier,
    describe: (key, options) => store.describe(key, options),
    open: (key, options) => store.open(key, options),
    delete: (key, options) => store.delete(key, options),
    async *list() {
      yield { key: record.key, size: record.size }
    },
  }
}
