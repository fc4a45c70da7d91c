import {
  ListObjectsCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandInput,
  PutObjectCommand,
  paginateListObjectsV2,
  type S3Client,
} from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createClient } from '../../support/s3/client.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { choose, first } from '../../support/thorough.js'

describeEachS3(
  'S3 listings',
  (server) => {
    let client: S3Client
    let small: string
    let large: string
    // Byte order puts the emoji last; UTF-16 order would put it before U+FF5E.
    const smallKeys = ['a', 'a/1', 'a/2', 'a/b/1', 'a0', 'b/1', 'b/2', 'c', '~', 'é', '～', '😀']
    const largeKeys = Array.from(
      { length: 1205 },
      (_, i) => `results/task-${i % 5}/${String(i).padStart(5, '0')}`,
    )

    beforeAll(async () => {
      client = createClient(server())
      small = await server().createBucket()
      large = await server().createBucket()
      const limit = pLimit(32)
      const put = (Bucket: string) => (Key: string) =>
        limit(() => client.send(new PutObjectCommand({ Bucket, Key, Body: Key })))
      await Promise.all([...smallKeys.map(put(small)), ...largeKeys.map(put(large))])
    })
    afterAll(() => client?.destroy())

    const list = async (input: Omit<ListObjectsV2CommandInput, 'Bucket'>) => {
      const page = await client.send(new ListObjectsV2Command({ Bucket: small, ...input }))
      return {
        page,
        keys: page.Contents?.map(({ Key }) => Key) ?? [],
        prefixes: page.CommonPrefixes?.map(({ Prefix }) => Prefix) ?? [],
      }
    }

    it('lists in the order of UTF-8 bytes', async () => {
      expect((await list({})).keys).toEqual(smallKeys)
    })

    it('tells a prefix from its siblings', async () => {
      expect((await list({ Prefix: 'a/' })).keys).toEqual(['a/1', 'a/2', 'a/b/1'])
      expect((await list({ Prefix: 'nothing' })).page).toMatchObject({ KeyCount: 0, IsTruncated: false })
    })

    it('rolls keys up to a delimiter', async () => {
      const top = await list({ Delimiter: '/' })
      expect(top.keys).toEqual(['a', 'a0', 'c', '~', 'é', '～', '😀'])
      expect(top.prefixes).toEqual(['a/', 'b/'])
      const inside = await list({ Delimiter: '/', Prefix: 'a/' })
      expect(inside.keys).toEqual(['a/1', 'a/2'])
      expect(inside.prefixes).toEqual(['a/b/'])
    })

    it('starts after a key, there or not', async () => {
      expect((await list({ StartAfter: 'a/2', Prefix: 'a' })).keys).toEqual(['a/b/1', 'a0'])
      expect((await list({ StartAfter: 'a/3', Prefix: 'a' })).keys).toEqual(['a/b/1', 'a0'])
    })

    it.each([1, 2, 3])('pages through keys and prefixes in steps of %d', async (MaxKeys) => {
      const seen: (string | undefined)[] = []
      let ContinuationToken: string | undefined
      do {
        const { page, keys, prefixes } = await list({ MaxKeys, Delimiter: '/', ContinuationToken })
        expect(keys.length + prefixes.length).toBeLessThanOrEqual(MaxKeys)
        expect(page.KeyCount).toBe(keys.length + prefixes.length)
        seen.push(...keys, ...prefixes)
        ContinuationToken = page.NextContinuationToken
        expect(page.IsTruncated).toBe(ContinuationToken !== undefined)
      } while (ContinuationToken !== undefined)
      expect(seen.sort()).toEqual(['a', 'a0', 'c', '~', 'é', '～', '😀', 'a/', 'b/'].sort())
    })

    it('pages through more than 1,000 keys without losing or repeating one', async () => {
      const keys: (string | undefined)[] = []
      let pages = 0
      for await (const page of paginateListObjectsV2({ client }, { Bucket: large, Prefix: 'results/' })) {
        pages += 1
        keys.push(...(page.Contents ?? []).map(({ Key }) => Key))
      }
      expect(pages).toBe(2)
      expect(keys).toEqual([...largeKeys].sort())
    })

    it('gives sizes, times and ETags', async () => {
      const { page } = await list({ Prefix: 'b/1' })
      const [object] = page.Contents ?? []
      expect(object).toMatchObject({ Key: 'b/1', Size: 3, StorageClass: 'STANDARD' })
      expect(object?.ETag).toMatch(/^"[0-9a-f]{32}"$/)
      expect(Math.abs(Date.now() - (object?.LastModified?.getTime() ?? 0))).toBeLessThan(60_000)
    })

    it('answers the older listing too', async () => {
      const first = await client.send(new ListObjectsCommand({ Bucket: small, MaxKeys: 2, Delimiter: '/' }))
      expect(first.IsTruncated).toBe(true)
      const second = await client.send(
        new ListObjectsCommand({ Bucket: small, Delimiter: '/', Marker: first.NextMarker }),
      )
      const seen = [first, second].flatMap(({ Contents = [], CommonPrefixes = [] }) => [
        ...Contents.map(({ Key }) => Key),
        ...CommonPrefixes.map(({ Prefix }) => Prefix),
      ])
      expect(seen.sort()).toEqual(['a', 'a0', 'c', '~', 'é', '～', '😀', 'a/', 'b/'].sort())
    })
  },
  choose(s3Servers(), first),
)
