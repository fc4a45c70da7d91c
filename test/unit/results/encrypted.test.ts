import { createHash } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Decryptor } from '../../../src/encryption/decryptor.js'
import { readPrivateKeys } from '../../../src/encryption/keys.js'
import type { Result, TierProblem } from '../../../src/results/result.js'
import { taskSource } from '../../../src/results/result-source.js'
import { createResults, type Results } from '../../../src/results/results.js'
import { DirectoryFiles } from '../../../src/stores/directory-files.js'
import type { ResultStore } from '../../../src/stores/result-store.js'
import { SpoolStore } from '../../../src/stores/spool-store.js'
import { plantInFolder } from '../../support/plant-spool.js'
import { readAll, recordFor } from '../../support/records.js'
import { makeKeys, sealedResult } from '../../support/sealed.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'

const taskId = 'task'
const keys = makeKeys()
const older = makeKeys()
const both = new Decryptor([keys, older].flatMap(({ privateKey }) => readPrivateKeys('key', privateKey)))

/** Counts what is read of a store. */
class Counted extends SpoolStore {
  bytes = 0
  override async open(...args: Parameters<ResultStore['open']>): Promise<ReadableStream<Uint8Array>> {
    const count = (chunk: Uint8Array): void => {
      this.bytes += chunk.length
    }
    const counting = new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        count(chunk)
        controller.enqueue(chunk)
      },
    })
    return (await super.open(...args)).pipeThrough(counting)
  }
}

describe('encrypted results', () => {
  let dir: TempDir
  let second: TempDir
  let problems: TierProblem[]
  let store: Counted
  beforeEach(async () => {
    dir = await makeTempDir()
    second = await makeTempDir()
    problems = []
    store = new Counted('first', 'directory', new DirectoryFiles(dir.path))
  })
  afterEach(async () => {
    await dir?.[Symbol.asyncDispose]()
    await second?.[Symbol.asyncDispose]()
  })

  const resultsWith = (decryptor: Decryptor | undefined): Results => {
    const stores = [store, new SpoolStore('second', 'directory', new DirectoryFiles(second.path))]
    const onProblem = (problem: TierProblem): unknown => problems.push(problem)
    return createResults(
      taskSource({ taskId, stores: async () => stores, manifests: undefined, decryptor, onProblem }),
    )
  }
  const only = async (decryptor: Decryptor | undefined = keys.decryptor): Promise<Result> => {
    const [result] = await resultsWith(decryptor).list()
    return result as Result
  }
  const plant = async (name: string, content: Uint8Array | string, to = keys): Promise<void> => {
    const { record, body } = sealedResult(to, { taskId, name }, content)
    await plantInFolder(dir.path, record, body)
  }

  it('are read like any others', async () => {
    const content = `{"n":[1,2]}${' '.repeat(200_000)}`
    await plant('a.json', content)
    const result = await only()
    expect(result).toMatchObject({ encrypted: true, contentType: 'text/plain', contentSize: content.length })
    expect(result.size).toBeGreaterThan(content.length)
    expect(await result.text()).toBe(content)
    expect(await result.json()).toEqual({ n: [1, 2] })
    expect((await readAll(result.stream())).toString()).toBe(content)
    const path = join(dir.path, 'saved')
    await result.save(path)
    expect(await readFile(path, 'utf8')).toBe(content)
    // Also unverified, and listed without asking what they are.
    const [bare] = await resultsWith(keys.decryptor).list({ metadata: false })
    expect(await bare?.text({ verify: false })).toBe(content)
    expect(problems).toEqual([])
  })

  it('count by their content where a limit is set', async () => {
    await plant('a', 'x'.repeat(100))
    const result = await only()
    expect((await result.bytes({ maxBytes: 100 })).length).toBe(100)
    await expect(result.bytes({ maxBytes: 99 })).rejects.toMatchObject({ code: 'TOO_LARGE' })
  })

  it('come as they are stored where that is asked for', async () => {
    await plant('a', 'x')
    const result = await only(undefined)
    const bytes = await result.bytes({ decrypt: false })
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(result.sha256)
    const path = join(dir.path, 'saved')
    await result.save(path, { decrypt: false })
    expect((await readFile(path)).equals(bytes)).toBe(true)
  })

  it('are unpacked', async () => {
    const archive = pack()
    archive.entry({ name: 'folder/a' }, 'in a')
    archive.finalize()
    const parts: Buffer[] = []
    for await (const part of archive as unknown as AsyncIterable<Buffer>) parts.push(part)
    const { record, body } = sealedResult(
      keys,
      { taskId, name: 'folder.tar.gz', archive: 'tar.gz' },
      gzipSync(Buffer.concat(parts)),
    )
    await plantInFolder(dir.path, record, body)
    const target = join(dir.path, 'out')
    await (await only()).extract(target)
    expect(await readFile(join(target, 'folder/a'), 'utf8')).toBe('in a')
    const downloads = join(dir.path, 'downloads')
    await resultsWith(keys.decryptor).download(downloads, { extract: true })
    expect(await readFile(join(downloads, '20260114-120000-folder/folder/a'), 'utf8')).toBe('in a')
  })

  it('are not read without the key, and say which it is', async () => {
    await plant('a', 'x', older)
    for (const decryptor of [undefined, keys.decryptor, new Decryptor([])]) {
      const result = await only(decryptor)
      expect(result).toMatchObject({ encrypted: true, contentSize: 1 })
      const missing = { code: 'DECRYPTION_KEY_MISSING', message: expect.stringContaining(older.keyId) }
      await expect(result.text()).rejects.toMatchObject(missing)
      await expect(readAll(result.stream())).rejects.toMatchObject(missing)
      await expect(result.save(join(dir.path, 'saved'))).rejects.toMatchObject(missing)
      const download = resultsWith(decryptor).download(join(dir.path, 'downloads'))
      await expect(download).rejects.toMatchObject({ code: 'DECRYPTION_KEY_MISSING' })
    }
    expect(store.bytes).toBe(0)
    expect(await (await only(both)).text()).toBe('x')
    // It may claim to be for another than it is for.
    const { record, body } = sealedResult(older, { taskId, name: 'a' }, 'x')
    const content_type = record.content_type.replace(older.keyId, keys.keyId)
    await plantInFolder(dir.path, { ...record, content_type }, body)
    const missing = { code: 'DECRYPTION_KEY_MISSING', message: expect.stringContaining(older.keyId) }
    await expect((await only()).text()).rejects.toMatchObject(missing)
    await expect((await only()).save(join(dir.path, 'saved'))).rejects.toMatchObject(missing)
    expect(await (await only(both)).text()).toBe('x')
    expect(problems).toEqual([])
  })

  it('are refused under the name or task of another, and when nothing in them is encrypted', async () => {
    const { body } = sealedResult(keys, { taskId, name: 'other' }, 'x')
    const { record } = sealedResult(keys, { taskId, name: 'a' }, 'y')
    const sha256 = createHash('sha256').update(body).digest('hex')
    await plantInFolder(dir.path, { ...record, size: body.length, sha256 }, body)
    const path = join(dir.path, 'saved')
    await expect((await only()).text()).rejects.toMatchObject({ code: 'INTEGRITY' })
    await expect((await only()).save(path)).rejects.toMatchObject({ code: 'INTEGRITY' })
    const plain = Buffer.alloc(body.length, 'x')
    const { content_type: contentType } = record
    await plantInFolder(dir.path, recordFor({ taskId, name: 'a', contentType }, plain), plain)
    await expect((await only()).text()).rejects.toMatchObject({ code: 'INTEGRITY' })
    await expect((await only()).save(path)).rejects.toMatchObject({ code: 'INTEGRITY' })
    expect((await readdir(dir.path)).filter((name) => name !== taskId)).toEqual([])
  })

  it('are read from the next tier when their bytes are not those that were stored', async () => {
    const { record, body } = sealedResult(keys, { taskId, name: 'a' }, 'x'.repeat(100_000))
    const damaged = Buffer.from(body)
    damaged[50_000] = (damaged[50_000] ?? 0) ^ 1
    await plantInFolder(dir.path, record, damaged)
    await plantInFolder(second.path, record, body)
    expect(await (await only()).text()).toBe('x'.repeat(100_000))
    await (await only()).save(join(dir.path, 'saved'))
    expect(await readFile(join(dir.path, 'saved'), 'utf8')).toBe('x'.repeat(100_000))
    expect(problems.map(({ error }) => error.code)).toEqual(['INTEGRITY', 'INTEGRITY'])
  })

  it('are not downloaded again when they are there, and are when what is there is another', async () => {
    const content = 'x'.repeat(5_000_000)
    await plant('a', content)
    const target = join(second.path, 'downloads')
    const results = resultsWith(keys.decryptor)
    expect((await results.download(target)).saved).toMatchObject([{ sizeBytes: content.length }])
    store.bytes = 0
    expect(await results.download(target)).toMatchObject({ saved: [], skipped: [{ sizeBytes: 5_000_000 }] })
    expect(store.bytes).toBeLessThan(2_500_000)
    const path = join(target, '20260114-120000-a')
    await writeFile(path, 'y'.repeat(5_000_000))
    expect((await results.download(target)).saved).toHaveLength(1)
    expect(await readFile(path, 'utf8')).toBe(content)
    expect(await readdir(target)).toEqual(['20260114-120000-a'])
  })

  it('get a link only when it is known that it leads to encrypted bytes', async () => {
    await plant('a', 'x')
    const links = Object.assign(store, { url: async () => 'http://link' })
    for (const decryptor of [undefined, keys.decryptor]) {
      const result = await only(decryptor)
      await expect(result.url()).rejects.toMatchObject({ code: 'UNSUPPORTED' })
      expect(await result.url({ encrypted: true })).toBe('http://link')
    }
    const [bare] = await resultsWith(keys.decryptor).list({ metadata: false })
    await expect(bare?.url()).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    expect(links).toBe(store)
  })
})
