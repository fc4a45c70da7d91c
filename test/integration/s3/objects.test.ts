import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import {
  CopyObjectCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListBucketsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3'
import { beforeAll, describe, expect, it } from 'vitest'
import { createClient } from '../../support/s3/client.js'
import { refusalOf } from '../../support/s3/failures.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { useBucket } from '../../support/s3/use-bucket.js'
import { choose, first } from '../../support/thorough.js'

const oddKeys = [
  'plain.txt',
  'with space',
  'plus+and&amp=?#%',
  'quotes\'and"(brackets)*!',
  'ünï/日本語/😀.txt',
  'a//b',
  '/leading',
  'trailing/',
  './dot',
  '../up',
  'a/../../b',
  '%2e%2e/%2F',
  'new\nline\r\ttab',
  '<xml>&\u0001',
  '~tilde-_.',
]

describeEachS3(
  'S3 objects',
  (server) => {
    let client: S3Client
    let Bucket: string
    useBucket(server, (opened) => {
      ;({ client, Bucket } = opened)
    })

    const put = (Key: string, Body: string, more: object = {}) =>
      client.send(new PutObjectCommand({ Bucket, Key, Body, ...more }))
    const get = async (Key: string, more: object = {}) => {
      const { Body, ...rest } = await client.send(new GetObjectCommand({ Bucket, Key, ...more }))
      return { ...rest, text: (await Body?.transformToString()) ?? '' }
    }

    it('returns what was stored, with its headers and metadata', async () => {
      const headers = {
        ContentType: 'text/csv; charset=utf-8',
        CacheControl: 'max-age=60',
        ContentDisposition: 'attachment; filename="r.csv"',
        ContentEncoding: 'identity',
      }
      await put('report', 'a,b', { ...headers, Metadata: { 'Task-Id': 'worker-1', encoded: '%C3%BC' } })
      const expected = {
        ...headers,
        ContentLength: 3,
        Metadata: { 'task-id': 'worker-1', encoded: '%C3%BC' },
      }
      expect(await get('report')).toMatchObject({ ...expected, text: 'a,b' })
      expect(await client.send(new HeadObjectCommand({ Bucket, Key: 'report' }))).toMatchObject(expected)
    })

    it('makes the MD5 of the body its ETag', async () => {
      expect((await put('etag', 'hello')).ETag).toBe('"5d41402abc4b2a76b9719d911017c592"')
    })

    it('stores an empty object', async () => {
      await put('empty', '')
      expect(await get('empty')).toMatchObject({ ContentLength: 0, text: '' })
    })

    it.each([...oddKeys.map((key) => [JSON.stringify(key), key]), ['of 1,024 bytes', 'x'.repeat(1024)]])(
      'keeps the key %s as it is',
      async (_, Key = '') => {
        await put(Key, Key)
        expect((await get(Key)).text).toBe(Key)
        const { Contents } = await client.send(
          new ListObjectsV2Command({ Bucket, Prefix: Key, MaxKeys: 1, EncodingType: 'url' }),
        )
        expect(decodeURIComponent((Contents?.[0]?.Key ?? '').replaceAll('+', ' '))).toBe(Key)
        await client.send(new DeleteObjectCommand({ Bucket, Key }))
        expect((await refusalOf(get(Key))).code).toBe('NoSuchKey')
      },
    )

    it('refuses a key over 1,024 bytes', async () => {
      expect((await refusalOf(put('ü'.repeat(513), 'x'))).code).toMatch(
        /KeyTooLong|InvalidObjectName|InvalidURI/,
      )
    })

    it('says for certain that a key or bucket does not exist', async () => {
      const Key = 'absent'
      expect(await refusalOf(get(Key))).toMatchObject({ status: 404, code: 'NoSuchKey' })
      expect(await refusalOf(client.send(new HeadObjectCommand({ Bucket, Key })))).toMatchObject({
        status: 404,
      })
      const nowhere = { Bucket: 'no-such-bucket-here' }
      expect(await refusalOf(client.send(new GetObjectCommand({ ...nowhere, Key })))).toMatchObject({
        status: 404,
        code: 'NoSuchBucket',
      })
      expect(await refusalOf(client.send(new HeadBucketCommand(nowhere)))).toMatchObject({ status: 404 })
      await client.send(new DeleteObjectCommand({ Bucket, Key }))
    })

    describe('ranges', () => {
      beforeAll(() => put('digits', '0123456789'))

      it.each([
        ['bytes=2-4', '234', 'bytes 2-4/10'],
        ['bytes=7-', '789', 'bytes 7-9/10'],
        ['bytes=-3', '789', 'bytes 7-9/10'],
        ['bytes=-99', '0123456789', 'bytes 0-9/10'],
        ['bytes=5-99', '56789', 'bytes 5-9/10'],
      ])('serves %s', async (Range, text, ContentRange) => {
        expect(await get('digits', { Range })).toMatchObject({
          text,
          ContentRange,
          ContentLength: text.length,
          $metadata: { httpStatusCode: 206 },
        })
      })

      it('refuses a range beyond the end', async () => {
        expect(await refusalOf(get('digits', { Range: 'bytes=10-' }))).toMatchObject({
          status: 416,
          code: 'InvalidRange',
        })
      })
    })

    describe('conditions', () => {
      it('reads by ETag and by time', async () => {
        const { ETag } = await put('conditional', 'one')
        expect((await get('conditional', { IfMatch: ETag })).text).toBe('one')
        expect((await refusalOf(get('conditional', { IfMatch: '"other"' }))).status).toBe(412)
        expect((await refusalOf(get('conditional', { IfNoneMatch: ETag }))).status).toBe(304)
        expect((await get('conditional', { IfNoneMatch: '"other"' })).text).toBe('one')
        const past = new Date(Date.now() - 60_000)
        expect((await refusalOf(get('conditional', { IfUnmodifiedSince: past }))).status).toBe(412)
        expect((await get('conditional', { IfModifiedSince: past })).text).toBe('one')
      })

      it('creates only what is not there with If-None-Match', async () => {
        await put('create-once', 'first', { IfNoneMatch: '*' })
        expect(await refusalOf(put('create-once', 'second', { IfNoneMatch: '*' }))).toMatchObject({
          status: 412,
          code: 'PreconditionFailed',
        })
        expect((await get('create-once')).text).toBe('first')
      })

      it('lets exactly one of many concurrent creators win', async () => {
        const attempts = Array.from({ length: 12 }, (_, i) => put('race', `${i}`, { IfNoneMatch: '*' }))
        const outcomes = await Promise.allSettled(attempts)
        const winners = outcomes.flatMap((outcome, i) => (outcome.status === 'fulfilled' ? [`${i}`] : []))
        expect(winners).toHaveLength(1)
        expect((await get('race')).text).toBe(winners[0])
      })

      it('replaces only what was seen with If-Match', async () => {
        const { ETag } = await put('seen', 'one')
        expect((await refusalOf(put('seen', 'two', { IfMatch: '"other"' }))).status).toBe(412)
        const IfMatch = server().quirks.ifMatchTakesQuotes ? ETag : ETag?.replaceAll('"', '')
        await put('seen', 'three', { IfMatch })
        expect((await get('seen')).text).toBe('three')
      })
    })

    describe('copies', () => {
      it('copies bytes and metadata, or replaces the metadata', async () => {
        await put('copy/source ü', 'bytes', { Metadata: { a: '1' }, ContentType: 'text/plain' })
        const CopySource = `${Bucket}/${encodeURIComponent('copy/source ü')}`
        await client.send(new CopyObjectCommand({ Bucket, Key: 'copy/same', CopySource }))
        expect(await get('copy/same')).toMatchObject({
          text: 'bytes',
          Metadata: { a: '1' },
          ContentType: 'text/plain',
        })
        await client.send(
          new CopyObjectCommand({
            Bucket,
            Key: 'copy/other',
            CopySource,
            MetadataDirective: 'REPLACE',
            Metadata: { b: '2' },
          }),
        )
        expect((await get('copy/other')).Metadata).toEqual({ b: '2' })
      })

      it('refuses a source that is absent, and a copy onto itself that changes nothing', async () => {
        const copy = (Key: string, source: string) =>
          client.send(new CopyObjectCommand({ Bucket, Key, CopySource: `${Bucket}/${source}` }))
        expect((await refusalOf(copy('copy/x', 'copy/absent'))).code).toBe('NoSuchKey')
        await put('copy/self', 'x')
        expect((await refusalOf(copy('copy/self', 'copy/self'))).code).toBe('InvalidRequest')
      })
    })

    it('deletes many keys in one request, odd ones too', async () => {
      const keys = ['many/1', 'many/<&>"\'', 'many/ü 😀', 'many/\u0001', 'many/a\r\nb']
      for (const key of keys) await put(key, key)
      // Control characters are not XML, and the SDK sends them as they are.
      const sendable = keys.filter((key) => !key.includes('\u0001'))
      const result = await client.send(
        new DeleteObjectsCommand({
          Bucket,
          Delete: { Objects: [...sendable, 'many/absent'].map((Key) => ({ Key })) },
        }),
      )
      expect(result.Errors).toBeUndefined()
      expect(result.Deleted?.map(({ Key }) => Key).sort()).toEqual([...sendable, 'many/absent'].sort())
      const left = await client.send(
        new ListObjectsV2Command({ Bucket, Prefix: 'many/', EncodingType: 'url' }),
      )
      expect(left.Contents?.map(({ Key = '' }) => decodeURIComponent(Key))).toEqual(['many/\u0001'])
    })

    it('refuses metadata over 2 KB where it has that limit', async () => {
      const Metadata = { big: 'x'.repeat(2046) }
      if (server().quirks.limitsMetadata) {
        expect((await refusalOf(put('metadata', 'x', { Metadata }))).code).toBe('MetadataTooLarge')
        await put('metadata', 'x', { Metadata: { big: 'x'.repeat(2045) } })
      } else {
        await put('metadata', 'x', { Metadata })
      }
    })

    it('keeps apart what is written at the same time under one key', async () => {
      const bodies = Array.from({ length: 8 }, (_, i) => `${i}`.repeat(300_000))
      await Promise.all(bodies.map((body) => put('contended', body)))
      expect(bodies).toContain((await get('contended')).text)
    })

    it('takes a stream of known length', async () => {
      const bytes = randomBytes(3_000_000)
      const Body = Readable.from([bytes.subarray(0, 1_000_000), bytes.subarray(1_000_000)])
      await client.send(new PutObjectCommand({ Bucket, Key: 'stream', Body, ContentLength: bytes.length }))
      const { Body: stored } = await client.send(new GetObjectCommand({ Bucket, Key: 'stream' }))
      expect(Buffer.from((await stored?.transformToByteArray()) ?? []).equals(bytes)).toBe(true)
    })

    it("works with the SDK's default checksums, in one piece and as a stream", async () => {
      const byDefault = createClient(server(), { requestChecksumCalculation: 'WHEN_SUPPORTED' })
      try {
        await byDefault.send(new PutObjectCommand({ Bucket, Key: 'default', Body: 'hello' }))
        const { Body, ChecksumCRC32 } = await byDefault.send(new GetObjectCommand({ Bucket, Key: 'default' }))
        expect(await Body?.transformToString()).toBe('hello')
        expect(ChecksumCRC32).toBe(server().quirks.storesChecksums ? 'NhCmhg==' : undefined)

        const stream = byDefault.send(
          new PutObjectCommand({
            Bucket,
            Key: 'trailer',
            Body: Readable.from([Buffer.from('streamed '), Buffer.from('body')]),
            ContentLength: 13,
          }),
        )
        if (server().quirks.acceptsChunkedTrailers) {
          await stream
          expect(await get('trailer')).toMatchObject({ text: 'streamed body' })
          expect((await get('trailer')).ContentEncoding).toBeUndefined()
        } else {
          expect((await refusalOf(stream)).status).toBeGreaterThanOrEqual(400)
        }
      } finally {
        byDefault.destroy()
      }
    })

    it('lists buckets and deletes only empty ones', async () => {
      const other = await server().createBucket()
      const names = (await client.send(new ListBucketsCommand({}))).Buckets?.map(({ Name }) => Name)
      expect(names).toContain(other)
      await client.send(new PutObjectCommand({ Bucket: other, Key: 'k', Body: 'x' }))
      expect(await refusalOf(client.send(new DeleteBucketCommand({ Bucket: other })))).toMatchObject({
        status: 409,
        code: 'BucketNotEmpty',
      })
      await client.send(new DeleteObjectCommand({ Bucket: other, Key: 'k' }))
      await client.send(new DeleteBucketCommand({ Bucket: other }))
      expect((await refusalOf(client.send(new HeadBucketCommand({ Bucket: other })))).status).toBe(404)
    })
  },
  choose(s3Servers(), first),
)
