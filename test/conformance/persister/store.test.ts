import { createHash, randomBytes } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseSealedType } from '../../../src/protocol/encryption/sealed-type.js'
import { parseKey } from '../../../src/protocol/key.js'
import { parseRecord } from '../../../src/protocol/parse.js'
import { describeEachTarget } from '../../support/persister/targets.js'
import { makeWorker, type Worker } from '../../support/persister/worker.js'
import { s3Servers } from '../../support/s3/servers.js'
import { makeKeys, open } from '../../support/sealed.js'
import { choose, last, thorough } from '../../support/thorough.js'
import { implementations } from './implementations.js'

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe.concurrent.each(implementations)('persist-result, $name', ({ name, argv }) => {
  const all = s3Servers()
  const choice = {
    servers: name === 'node' ? all : choose(all, last),
    broker: name === 'node' ? all : choose(all, (...kind) => name === 'busybox' && last(...kind)),
    swift: name === 'node' || argv === implementations[1]?.argv,
  }
  describeEachTarget((target) => {
    /** Holds a stored result against every place that should have it, byte for byte. */
    async function expectStored(
      worker: Worker,
      key: string,
      expected: { bytes: Buffer; contentType: string; metadata: unknown },
    ): Promise<void> {
      const record = (await worker.records()).find((candidate) => candidate.key === key)
      expect(record).toBeDefined()
      expect(parseRecord(JSON.stringify(record))).toMatchObject({
        key,
        task_id: worker.taskId,
        size: expected.bytes.length,
        sha256: sha256(expected.bytes),
        content_type: expected.contentType,
        metadata: expected.metadata,
      })
      const { tier } = target()
      expect(record?.errors).toEqual({})
      expect(record?.stored.map((stored) => stored.tier)).toEqual(tier === undefined ? [] : [tier])
      const retrieved = await worker.persist(['--retrieve', key])
      expect(retrieved).toMatchObject({ status: 0, stderr: '' })
      expect(retrieved.stdoutBytes.equals(expected.bytes)).toBe(true)
      if (tier === undefined) return
      const remote = await target().read(key)
      // The parser behind the HTTP target drops a type's parameters.
      expect(remote?.contentType.split(';')[0]).toBe(expected.contentType.split(';')[0])
      expect(remote).toMatchObject({
        sha256: sha256(expected.bytes),
        metadata: expected.metadata,
      })
      expect(remote?.bytes.equals(expected.bytes)).toBe(true)
    }

    it('stores a file under its own name', async (test) => {
      const worker = await makeWorker(test, argv, target())
      const bytes = randomBytes(100_000)
      await writeFile(join(worker.folder, 'output.json'), bytes)
      const result = await worker.persist(['output.json'])
      expect(result.status).toBe(0)
      expect(result.stdout).toMatch(/^task-[\d-]+\/\d{8}-\d{6}-output\.json\n$/)
      await expectStored(worker, result.key, { bytes, contentType: 'application/json', metadata: {} })
    })

    if (name === 'node') {
      it('stores encrypted what it has a key for, and reads none of it back', async (test) => {
        const keys = makeKeys()
        const worker = await makeWorker(test, argv, target(), {
          WORKER_RESULTS_ENCRYPTION_KEY: keys.publicKey,
        })
        const bytes = randomBytes(200_000)
        await writeFile(join(worker.folder, 'output.json'), bytes)
        const { status, key } = await worker.persist(['--quiet', 'output.json'])
        expect(status).toBe(0)
        const [record] = await worker.records()
        expect(parseSealedType(record?.content_type ?? '')).toEqual({
          keyId: keys.keyId,
          contentType: 'application/json',
        })
        const remote = await target().read(key)
        const isLocal = target().tier === undefined
        const sealed = isLocal ? await worker.spooled(key) : (remote?.bytes ?? Buffer.alloc(0))
        expect(sha256(sealed)).toBe(record?.sha256)
        expect((await open(keys, key, [sealed])).equals(bytes)).toBe(true)
        // The parser behind the HTTP target drops a type's parameters.
        const expected = target().tier === 'http' ? record?.content_type.split(';')[0] : record?.content_type
        if (!isLocal) expect(remote?.contentType).toBe(expected)
        if (target().tier === 's3') await rm(worker.localDir, { recursive: true })
        const read = await worker.persist(['--retrieve', key])
        expect(read).toMatchObject({ status: 1, stdout: '' })
        // A policy does not reach what was stored by it.
        const reads = worker.env.WORKER_RESULTS_GRANT === undefined || target().tier === 'http'
        if (reads) expect(read.stderr).toMatch(/^persist-result: \S+ is encrypted: /)
      })
    }

    it('stores an empty file', async (test) => {
      const worker = await makeWorker(test, argv, target())
      await writeFile(join(worker.folder, 'empty'), '')
      const result = await worker.persist(['empty'])
      expect(result.status).toBe(0)
      const expected = { bytes: Buffer.alloc(0), contentType: 'application/octet-stream', metadata: {} }
      await expectStored(worker, result.key, expected)
    })

    it('stores standard input, several megabytes of it', async (test) => {
      const worker = await makeWorker(test, argv, target())
      const bytes = randomBytes(3_500_000)
      const result = await worker.persist(['-', '--name', 'piped.bin'], { input: bytes })
      expect(result.status).toBe(0)
      await expectStored(worker, result.key, { bytes, contentType: 'application/octet-stream', metadata: {} })
    })

    it('keeps names with spaces, quotes, signs and other scripts', async (test) => {
      const worker = await makeWorker(test, argv, target())
      const name = `ünï "quoted" b+c (d)'e!*=&?#%41 日本 \u{1f600}.txt`
      await writeFile(join(worker.folder, name), 'text')
      const result = await worker.persist([name])
      expect(result.status).toBe(0)
      expect(parseKey(result.key)?.name).toBe(name)
      const expected = { bytes: Buffer.from('text'), contentType: 'text/plain; charset=utf-8', metadata: {} }
      await expectStored(worker, result.key, expected)
    })

    it('keeps a name of 255 bytes', async (test) => {
      const worker = await makeWorker(test, argv, target())
      const name = `${'é'.repeat(125)}x.csv`
      await writeFile(join(worker.folder, 'in'), 'a,b\n')
      const result = await worker.persist(['in', '-n', name])
      expect(result.status).toBe(0)
      const expected = { bytes: Buffer.from('a,b\n'), contentType: 'text/csv; charset=utf-8', metadata: {} }
      await expectStored(worker, result.key, expected)
    })

    it('keeps metadata with quotes, newlines, unicode and numbers', async (test) => {
      const worker = await makeWorker(test, argv, target())
      const metadata = {
        status: 'complete "quoted" \\ back\\slash',
        lines: 'one\ntwo\r\n\tthree',
        blanks: '  two  blanks  ',
        ключ: '値 \u{1f600} é \u0001 \u007f',
        deep: { list: [1, -2.5, 1e21, true, false, null, { a: [] }], empty: {} },
        xml: '<a href="x">&amp;</a>',
      }
      await writeFile(join(worker.folder, 'r.json'), '{}')
      const result = await worker.persist(['r.json', '--metadata', JSON.stringify(metadata, null, 2)])
      expect(result.status).toBe(0)
      const expected = { bytes: Buffer.from('{}'), contentType: 'application/json', metadata }
      await expectStored(worker, result.key, expected)
    })

    it('keeps far more metadata than a command line takes, from a file', async (test) => {
      const worker = await makeWorker(test, argv, target())
      const metadata = {
        long: 'ü"\\\n'.repeat(thorough ? 170_000 : 50_000),
        list: Array.from({ length: 1000 }, (_, i) => `item ${i}`),
      }
      await writeFile(join(worker.folder, 'meta.json'), JSON.stringify(metadata))
      await writeFile(join(worker.folder, 'r.json'), '[]')
      const result = await worker.persist(['r.json', '-m', '@meta.json'])
      expect(result.status).toBe(0)
      const expected = { bytes: Buffer.from('[]'), contentType: 'application/json', metadata }
      await expectStored(worker, result.key, expected)
    })

    it('keeps metadata around the 2 KB that S3 takes', async (test) => {
      const worker = await makeWorker(test, argv, target())
      await writeFile(join(worker.folder, 'r.json'), '1')
      for (const length of [1800, 2048]) {
        const metadata = { a: 'x'.repeat(length) }
        const result = await worker.persist(['r.json', '-m', JSON.stringify(metadata)])
        expect(result.status).toBe(0)
        const expected = { bytes: Buffer.from('1'), contentType: 'application/json', metadata }
        await expectStored(worker, result.key, expected)
      }
    })

    it('stores several files in one call and tells their keys in order', async (test) => {
      const worker = await makeWorker(test, argv, target())
      for (const name of ['b.txt', 'a.txt']) await writeFile(join(worker.folder, name), name)
      const result = await worker.persist(['b.txt', 'a.txt', '--content-type', 'text/x-own'])
      expect(result.status).toBe(0)
      const keys = result.stdout.trimEnd().split('\n')
      expect(keys.map((key) => parseKey(key)?.name)).toEqual(['b.txt', 'a.txt'])
      for (const key of keys) {
        const bytes = Buffer.from(parseKey(key)?.name ?? '')
        await expectStored(worker, key, { bytes, contentType: 'text/x-own', metadata: {} })
      }
    })

    it('gives results of the same name in the same second different keys', async (test) => {
      const worker = await makeWorker(test, argv, target())
      await mkdir(join(worker.folder, 'd'))
      const contents = Array.from({ length: 6 }, (_, i) => `content ${i}`)
      const results = await Promise.all(
        contents.map((input) => worker.persist(['-', '-n', 'same.txt'], { input })),
      )
      const keys = results.map(({ key }) => key)
      expect(new Set(keys).size).toBe(contents.length)
      for (const [i, content] of contents.entries()) {
        const expected = { contentType: 'text/plain; charset=utf-8', metadata: {} }
        await expectStored(worker, keys[i] ?? '', { ...expected, bytes: Buffer.from(content) })
      }
      if (target().tier !== undefined) expect(await target().keys(worker.taskId)).toEqual(keys.sort())
    })
  }, choice)
})
