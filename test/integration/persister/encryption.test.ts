import { createDecipheriv, createPrivateKey } from 'node:crypto'
import { mkdir, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Decryptor } from '../../../src/encryption/decryptor.js'
import { keyIdOf } from '../../../src/protocol/encryption/public-key.js'
import {
  chunkNonce,
  chunksKey,
  contextOf,
  HEADER_BYTES,
} from '../../../src/protocol/encryption/sealed-format.js'
import { publicBytesOf } from '../../../src/protocol/encryption/sealer.js'
import { splitKey } from '../../../src/protocol/key.js'
import { implementations } from '../../conformance/persister/implementations.js'
import { startHttpReceiver } from '../../support/persister/http-receiver.js'
import { BUNDLE } from '../../support/persister/program.js'
import type { Cleanup } from '../../support/persister/scratch.js'
import { spoolTarget } from '../../support/persister/targets.js'
import { makeWorker, type Worker } from '../../support/persister/worker.js'
import { makeKeys, open } from '../../support/sealed.js'

const node = [process.execPath, BUNDLE]
const SECRET = 'nobody may know this'
const keys = makeKeys()

/** A worker that has the public key, and whose notes go into its own folder. */
async function sealingWorker(test: Cleanup, env: Record<string, string> = {}): Promise<Worker> {
  const worker = await makeWorker(test, node, spoolTarget, {
    WORKER_RESULTS_ENCRYPTION_KEY: keys.publicKey,
    ...env,
  })
  const notes = join(worker.folder, 'tmp')
  await mkdir(notes)
  return {
    ...worker,
    env: { ...worker.env, TMPDIR: notes },
    persist: (args, options = {}) =>
      worker.persist(args, { ...options, env: { TMPDIR: notes, ...options.env } }),
  }
}

async function allFiles(folder: string): Promise<Buffer[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile())
  return Promise.all(files.map(({ parentPath, name }) => readFile(join(parentPath, name))))
}

/** Tries 32 bytes as each of the keys that could open a result. */
function opens(secret: Buffer, result: string, sealed: Buffer): boolean {
  const { taskId, name } = splitKey(result)
  const header = sealed.subarray(0, HEADER_BYTES)
  const tryChunk = (key: Uint8Array): void => {
    const cipher = createDecipheriv('aes-256-gcm', key, chunkNonce(0, true))
    cipher.setAuthTag(sealed.subarray(-16))
    cipher.update(sealed.subarray(HEADER_BYTES, -16))
    cipher.final()
  }
  const tryPrivate = (): void => {
    // PKCS #8 of an X25519 key: https://www.rfc-editor.org/rfc/rfc8410#section-7
    const der = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), secret])
    const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    const publicBytes = publicBytesOf(key)
    // As if its header named just this key.
    const id = header.toString('hex', 16, 24)
    if (keyIdOf(publicBytes) === id) throw new Error('found')
    new Decryptor([{ id, key, publicBytes }]).open(result, header)
  }
  const attempts = [
    () => tryChunk(secret),
    () => tryChunk(chunksKey(secret, header, contextOf(taskId, name))),
    tryPrivate,
  ]
  return attempts.some((attempt) => {
    try {
      attempt()
      return true
    } catch (error) {
      return error instanceof Error && error.message === 'found'
    }
  })
}

describe('persist-result with a public key', () => {
  it('leaves nothing behind in spool, notes and environment that opens what it stored', async (test) => {
    const worker = await sealingWorker(test)
    await writeFile(join(worker.folder, 'r.txt'), SECRET)
    const { key, status, stderr } = await worker.persist(['-q', 'r.txt'])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const sealed = await worker.spooled(key)
    expect((await open(keys, key, [sealed])).toString()).toBe(SECRET)
    const files = [...(await allFiles(worker.localDir)), ...(await allFiles(worker.env.TMPDIR ?? ''))]
    const variables = Object.values(worker.env).flatMap((value) => [
      Buffer.from(value),
      Buffer.from(value.replace(/^x25519:/, ''), 'base64url'),
    ])
    expect(Buffer.concat(files).includes(SECRET)).toBe(false)
    let tried = 0
    for (const bytes of [
      ...files,
      ...variables,
      ...files.map((file) => Buffer.from(file.toString(), 'hex')),
    ]) {
      for (let at = 0; at + 32 <= bytes.length; at++, tried++) {
        expect(opens(bytes.subarray(at, at + 32), key, sealed)).toBe(false)
      }
    }
    expect(tried).toBeGreaterThan(500)
    // The same search finds what is to be found.
    const secret = createPrivateKey(keys.privateKey).export({ format: 'der', type: 'pkcs8' }).subarray(-32)
    expect(opens(secret, key, sealed)).toBe(true)
  })

  it('stores an output again only when its content has changed, as far as it knows', async (test) => {
    const worker = await sealingWorker(test)
    const file = join(worker.folder, 'out.txt')
    const folder = join(worker.folder, 'dir')
    await mkdir(folder)
    await writeFile(file, SECRET)
    await writeFile(join(folder, 'a'), SECRET)
    const drain = async (): Promise<string[]> => {
      const { stdout } = await worker.persist(['drain', '--output', 'out.txt', '--output', 'dir'])
      return stdout
        .split('\n')
        .map((line) => line.split('\t')[0] ?? '')
        .slice(0, 2)
    }
    await worker.persist(['-q', 'out.txt'])
    expect(await drain()).toEqual(['unchanged', 'stored'])
    const { status } = await worker.persist(['run', '--output', 'out.txt', '--', 'touch', 'out.txt'])
    expect(status).toBe(0)
    expect(await drain()).toEqual(['unchanged', 'unchanged'])
    const [before] = await readdir(folder)
    await utimes(join(folder, before ?? ''), 1, 1)
    await writeFile(file, SECRET.toUpperCase())
    expect(await drain()).toEqual(['stored', 'stored'])
    expect(await drain()).toEqual(['unchanged', 'unchanged'])
    await rm(worker.env.TMPDIR ?? '', { recursive: true })
    expect(await drain()).toEqual(['stored', 'stored'])
    const records = await worker.records()
    const named = records.filter(({ name }) => name === 'out.txt').map(({ key }) => key)
    const contents = named.map(async (key) => (await open(keys, key, [await worker.spooled(key)])).toString())
    expect(await Promise.all(contents)).toEqual([SECRET, SECRET.toUpperCase(), SECRET.toUpperCase()])
  })

  it('encrypts big files, streams and folders alike', async (test) => {
    const worker = await sealingWorker(test)
    const big = Buffer.alloc(3_000_001, SECRET)
    await writeFile(join(worker.folder, 'big'), big)
    const file = await worker.persist(['-q', 'big'])
    const stream = await worker.persist(['-q', '-', '-n', 'piped'], { input: big })
    for (const { key } of [file, stream]) {
      expect((await open(keys, key, [await worker.spooled(key)])).equals(big)).toBe(true)
    }
  })

  it('sends nothing in clear either when there is no spool', async (test) => {
    const receiver = await startHttpReceiver('token')
    test.onTestFinished(() => receiver[Symbol.asyncDispose]())
    const worker = await sealingWorker(test, {
      WORKER_RESULTS_ENDPOINT: receiver.url,
      WORKER_RESULTS_TOKEN: 'token',
    })
    await writeFile(join(worker.folder, 'r.txt'), SECRET)
    // A file where the spool's folder would be.
    await writeFile(worker.localDir, '')
    const { key, status } = await worker.persist(['-q', '--require', 'http', 'r.txt'])
    expect(status).toBe(0)
    const form = receiver.forms.get(key)
    expect(form?.fields.content_type).toMatch(/^application\/vnd\.stu-conductor\.encrypted;/)
    expect((await open(keys, key, [form?.file ?? Buffer.alloc(0)])).toString()).toBe(SECRET)
  })

  it('stores nothing for a key that is none, and does not repeat it', async (test) => {
    for (const wrong of ['x25519:short', keys.privateKey, keys.publicKey.slice(7)]) {
      const worker = await sealingWorker(test, { WORKER_RESULTS_ENCRYPTION_KEY: wrong })
      await writeFile(join(worker.folder, 'r.txt'), SECRET)
      const { status, stderr, stdout } = await worker.persist(['r.txt'])
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
      expect(stderr).toMatch(/^persist-result: WORKER_RESULTS_ENCRYPTION_KEY must be a public key[^\n]*\n$/)
      expect(stderr).not.toContain(wrong.slice(8, 20))
      await expect(worker.records()).rejects.toMatchObject({ code: 'ENOENT' })
    }
    const worker = await makeWorker(test, node, spoolTarget)
    await writeFile(join(worker.folder, 'r.txt'), SECRET)
    const claimed = ['--content-type', 'Application/vnd.stu-conductor.encrypted; v=1']
    expect(await worker.persist([...claimed, 'r.txt'])).toMatchObject({ status: 2, stdout: '' })
  })
})

describe.each(implementations.filter(({ name }) => name !== 'node'))(
  'the shell implementation with a public key, $name',
  ({ argv }) => {
    it('stores nothing rather than in clear, and gives back nothing that is encrypted', async (test) => {
      const sealing = await sealingWorker(test)
      await writeFile(join(sealing.folder, 'r.txt'), SECRET)
      const { key } = await sealing.persist(['-q', 'r.txt'])
      const worker = await makeWorker(test, argv, spoolTarget, {
        ...sealing.env,
        WORKER_ID: sealing.taskId,
      })
      const refusal = /^persist-result: results are to be encrypted, which needs Node\.js/
      await writeFile(join(worker.folder, 's.txt'), SECRET)
      const stored = await worker.persist(['s.txt'])
      expect(stored).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(refusal) })
      const drained = await worker.persist(['drain', '--output', 's.txt', '--json'])
      expect(JSON.parse(drained.stdout)).toMatchObject({
        outputs: [{ status: 'failed', error: expect.stringMatching(/needs Node\.js/) }],
        records: [{ key }],
      })
      const ran = await worker.persist(['run', '--output', 's.txt', '--', 'sh', '-c', 'exit 7'])
      expect(ran).toMatchObject({ status: 7, stderr: expect.stringMatching(/needs Node\.js/) })
      const read = await worker.persist(['-r', key])
      expect(read).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('is encrypted') })
      // As the conductor leaves it, for an environment that has lost it.
      const folder = join(sealing.localDir, '.worker', sealing.taskId)
      await mkdir(folder, { recursive: true })
      await writeFile(join(folder, 'encryption-key'), keys.publicKey)
      const bare = await worker.persist(['s.txt'], { env: { WORKER_RESULTS_ENCRYPTION_KEY: '' } })
      expect(bare).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(refusal) })
      expect(Buffer.concat(await allFiles(sealing.localDir)).includes(SECRET)).toBe(false)
    })
  },
)
