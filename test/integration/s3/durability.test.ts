import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import {
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  paginateListObjectsV2,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type LocalS3, startLocalS3 } from '../../../src/local/s3/index.js'
import { pathOfKey, RecordWriter } from '../../../src/local/s3/store/record-file.js'
import { startChildScript } from '../../support/s3/child-script.js'
import { createClient, type S3Endpoint } from '../../support/s3/client.js'

const Bucket = 'durable'
const credentials = [{ accessKeyId: 'KEPT', secretAccessKey: 'kept-over-restarts' }]
const serverScript = `
  import { startLocalS3 } from '../../../src/local/s3/index.js'
  const [dataDir, options] = process.argv.slice(2)
  const { url, region, credentials } = await startLocalS3({ dataDir, ...JSON.parse(options) })
  console.log(JSON.stringify({ url, region, credentials }))
`

describe('local S3: what is kept', () => {
  let dataDir: string
  let clients: S3Client[]

  beforeEach(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 's3-durability-'))
    clients = []
  })
  afterEach(async () => {
    for (const client of clients) client.destroy()
    await rm(dataDir, { recursive: true, force: true })
  })

  const start = () => startLocalS3({ dataDir, buckets: [Bucket], credentials })
  const connectTo = (server: S3Endpoint) => {
    const client = createClient(server)
    clients.push(client)
    return client
  }
  const read = async (client: S3Client, Key: string) => {
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }))
    return Buffer.from((await Body?.transformToByteArray()) ?? [])
  }
  const keysOf = async (client: S3Client) => {
    const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket }))
    return Contents.map(({ Key }) => Key)
  }
  /** Sends the head and the first bytes of an upload, and leaves it there. */
  const beginUpload = async (server: S3Endpoint, Key: string) => {
    const url = await getSignedUrl(connectTo(server), new PutObjectCommand({ Bucket, Key }))
    const request = httpRequest(url, { method: 'PUT', headers: { 'content-length': 50_000_000 } })
    // It will break, which is the point.
    request.on('error', () => undefined)
    request.write(Buffer.alloc(3_000_000))
    await untilStaged()
    return request
  }
  /** Resolves once the server has begun to write a body. */
  const untilStaged = async () => {
    while ((await readdir(join(dataDir, 'tmp'))).length === 0) await delay(5)
  }
  const untilNothingIsStaged = async () => {
    while ((await readdir(join(dataDir, 'tmp'))).length > 0) await delay(5)
  }

  it('survives a restart: objects, attributes, buckets and uploads in parts', async () => {
    let upload: { Bucket: string; Key: string; UploadId: string | undefined }
    {
      await using server = await start()
      const client = connectTo(server)
      await client.send(
        new PutObjectCommand({
          Bucket,
          Key: 'ünï/😀',
          Body: 'kept',
          Metadata: { a: 'x'.repeat(2000) },
          ContentType: 'a/b',
        }),
      )
      await client.send(new PutObjectCommand({ Bucket, Key: 'gone', Body: 'x' }))
      await client.send(new DeleteObjectCommand({ Bucket, Key: 'gone' }))
      const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key: 'parts' }))
      upload = { Bucket, Key: 'parts', UploadId }
      await client.send(new UploadPartCommand({ ...upload, PartNumber: 3, Body: 'part' }))
    }
    await using server = await start()
    const client = connectTo(server)
    expect(await keysOf(client)).toEqual(['ünï/😀'])
    expect((await read(client, 'ünï/😀')).toString()).toBe('kept')
    const head = await client.send(new HeadObjectCommand({ Bucket, Key: 'ünï/😀' }))
    expect(head).toMatchObject({ ContentType: 'a/b', Metadata: { a: 'x'.repeat(2000) } })
    const { Parts } = await client.send(new ListPartsCommand(upload))
    expect(Parts).toMatchObject([{ PartNumber: 3, Size: 4 }])
  })

  it('shows nothing of an upload whose client went away, and keeps what was there', async () => {
    await using server = await start()
    const client = connectTo(server)
    await client.send(new PutObjectCommand({ Bucket, Key: 'replaced', Body: 'old' }))
    for (const key of ['new', 'replaced']) {
      const request = await beginUpload(server, key)
      expect(await keysOf(client)).toEqual(['replaced'])
      request.destroy()
      await untilNothingIsStaged()
    }
    expect(await keysOf(client)).toEqual(['replaced'])
    expect((await read(client, 'replaced')).toString()).toBe('old')
  })

  it('loses nothing it acknowledged, and shows nothing partial, when it is killed', async () => {
    const acknowledged: string[] = []
    const child = await startChildScript(serverScript, [
      dataDir,
      JSON.stringify({ buckets: [Bucket], credentials }),
    ])
    try {
      const server = (await child.nextMessage()) as S3Endpoint
      const client = connectTo(server)
      await beginUpload(server, 'partial')
      const writers = Array.from({ length: 4 }, async (_, writer) => {
        for (let i = 0; ; i++) {
          const Key = `w${writer}/${i}`
          await client.send(new PutObjectCommand({ Bucket, Key, Body: Key.repeat(1000) }))
          acknowledged.push(Key)
          if (acknowledged.length === 40) void child.kill()
        }
      })
      await Promise.allSettled(writers)
    } finally {
      await child.kill()
    }
    await using server = await start()
    const client = connectTo(server)
    const keys = await keysOf(client)
    expect(acknowledged.length).toBeGreaterThanOrEqual(40)
    expect(keys).toEqual(expect.arrayContaining(acknowledged))
    expect(keys).not.toContain('partial')
    // What was written but not acknowledged may be there, whole.
    for (const key of keys) expect((await read(client, key ?? '')).toString()).toBe((key ?? '').repeat(1000))
    expect(await readdir(join(dataDir, 'tmp'))).toEqual([])
  })

  it('gives a reader the old bytes or the new ones, whole, while they are replaced', async () => {
    await using server = await start()
    const client = connectTo(server)
    const versions = ['a', 'b', 'c'].map((letter, i) => Buffer.alloc(2_000_000 + i * 1000, letter))
    const write = (body: Buffer | undefined) =>
      client.send(new PutObjectCommand({ Bucket, Key: 'k', Body: body ?? '' }))
    await write(versions[0])
    let isWriting = true
    const readers = Array.from({ length: 3 }, async () => {
      let reads = 0
      while (isWriting) {
        const bytes = await read(client, 'k')
        expect(versions.some((version) => version.equals(bytes))).toBe(true)
        reads += 1
      }
      return reads
    })
    for (let i = 0; i < 20; i++) await write(versions[i % 3])
    isWriting = false
    for (const reads of await Promise.all(readers)) expect(reads).toBeGreaterThan(0)
  })

  it('keeps a second server off its data folder', async () => {
    await using server = await start()
    await expect(start()).rejects.toMatchObject({ code: 'EXISTS' })
    const client = connectTo(server)
    await client.send(new PutObjectCommand({ Bucket, Key: 'k', Body: 'x' }))
  })

  it('stops while uploads and half-sent requests are under way', async () => {
    const server = await start()
    await beginUpload(server, 'under-way')
    const idle = connect(server.port, '127.0.0.1')
    idle.on('error', () => undefined)
    idle.write('PUT /durable/x HTTP/1.1\r\n')
    await server.close()
    idle.destroy()
    expect(await readdir(join(dataDir, 'tmp'))).toEqual([])
  })

  it('removes its temporary folder', async () => {
    // Its own place, since other tests have servers in the usual one.
    vi.stubEnv('TMPDIR', dataDir)
    try {
      const server = await startLocalS3()
      expect(await readdir(dataDir)).toEqual([expect.stringMatching(/^local-s3-/)])
      await server.close()
      expect(await readdir(dataDir)).toEqual([])
    } finally {
      vi.unstubAllEnvs()
    }
  })

  it('refuses to start over a damaged file, and names it', async () => {
    await (await start()).close()
    const path = pathOfKey(join(dataDir, 'buckets', Bucket, 'objects'), 'k')
    await mkdir(join(path, '..'), { recursive: true })
    await writeFile(path, 'not what the server writes')
    await expect(start()).rejects.toThrow(`${path} is damaged`)
    // The folder is free again.
    await rm(path)
    await (await start()).close()
  })

  it('opens with thousands of objects, and lists them a page at a time', async () => {
    await (await start()).close()
    await plant(3_500)
    await using server: LocalS3 = await start()
    const client = connectTo(server)
    const keys: (string | undefined)[] = []
    for await (const page of paginateListObjectsV2({ client }, { Bucket })) {
      keys.push(...(page.Contents ?? []).map(({ Key }) => Key))
    }
    expect(keys).toEqual(Array.from({ length: 3_500 }, (_, i) => `task-${String(i).padStart(6, '0')}/result`))
    expect(server.requestCount('ListObjectsV2')).toBe(4)
  })

  /** Writes objects as the server does, without a request and two syncs for each. */
  const plant = async (count: number) => {
    const objects = join(dataDir, 'buckets', Bucket, 'objects')
    const folders = new Set<string>()
    const one = async (i: number) => {
      const key = `task-${String(i).padStart(6, '0')}/result`
      const path = pathOfKey(objects, key)
      const folder = join(path, '..')
      if (!folders.has(folder)) await mkdir(folder, { recursive: true })
      folders.add(folder)
      const writer = await RecordWriter.create(join(dataDir, 'tmp'))
      await writer.finish({
        key,
        sizeBytes: 0,
        etag: 'd41d8cd98f00b204e9800998ecf8427e',
        lastModifiedMs: 0,
        attributes: { headers: {}, metadata: {}, encryption: {}, tags: [] },
        checksums: {},
        checksumType: 'FULL_OBJECT',
      })
      await writer.publish(path)
    }
    for (let i = 0; i < count; i += 100) await Promise.all(Array.from({ length: 100 }, (_, j) => one(i + j)))
  }
})
