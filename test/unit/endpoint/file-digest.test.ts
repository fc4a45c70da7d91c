import { createHash, randomBytes } from 'node:crypto'
import { appendFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FileDigest } from '../../../src/endpoint/backends/file-digest.js'
import { StagingFolder } from '../../../src/endpoint/backends/staging-folder.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'

/** On this machine threads are allowed. */
const startDigest = (path: string): FileDigest => FileDigest.start(path) as FileDigest
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

describe('FileDigest', () => {
  let dir: TempDir
  beforeAll(async () => {
    dir = await makeTempDir()
  })
  afterAll(() => dir[Symbol.asyncDispose]())

  it('tells the digests of files while they grow, several at once', async () => {
    const files = [1, 2, 3].map((n) => ({
      path: join(dir.path, `grow-${n}`),
      body: randomBytes(n * 1_300_000),
    }))
    const digests = await Promise.all(
      files.map(async ({ path, body }) => {
        await writeFile(path, body.subarray(0, 700_000))
        const digest = startDigest(path)
        digest.advance(700_000)
        await appendFile(path, body.subarray(700_000))
        return digest.finish(body.length)
      }),
    )
    expect(digests).toEqual(files.map(({ body }) => sha256(body)))
  })

  it('takes only what it is told of, and an empty file for what it is', async () => {
    const path = join(dir.path, 'some')
    await writeFile(path, 'all of it')
    expect(await startDigest(path).finish(3)).toBe(sha256(Buffer.from('all')))
    expect(await startDigest(path).finish(0)).toBe(sha256(Buffer.alloc(0)))
  })

  it('tells nothing of a file that is not there, or shorter than it should be, and goes on with others', async () => {
    const path = join(dir.path, 'short')
    await writeFile(path, 'short')
    expect(await startDigest(join(dir.path, 'absent')).finish(1)).toBeUndefined()
    expect(await startDigest(path).finish(6)).toBeUndefined()
    startDigest(path).abandon()
    expect(await startDigest(path).finish(5)).toBe(sha256(Buffer.from('short')))
  })

  it('is what a staged body of many megabytes is told by', async () => {
    const staging = await StagingFolder.open(join(dir.path, 'staging'), { durable: false })
    const block = randomBytes(1 << 20)
    const whole = Buffer.concat(Array.from({ length: 21 }, () => block))
    const staged = await staging.receive(Array.from({ length: 21 }, () => block))
    expect(staged).toMatchObject({ sizeBytes: whole.length, sha256: sha256(whole) })
  })
})
