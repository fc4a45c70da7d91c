import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListPartsCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { expect, it } from 'vitest'
import { refusalOf } from '../../support/s3/failures.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { useBucket } from '../../support/s3/use-bucket.js'
import { choose, first } from '../../support/thorough.js'

const big = Buffer.alloc(5 * 2 ** 20, 7)

describeEachS3(
  'S3 uploads in parts',
  (server) => {
    let client: S3Client
    let Bucket: string
    useBucket(server, (opened) => {
      ;({ client, Bucket } = opened)
    })

    const begin = async (Key: string, more: object = {}) => {
      const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key, ...more }))
      return { Bucket, Key, UploadId }
    }
    type Upload = Awaited<ReturnType<typeof begin>>
    const put = (upload: Upload, PartNumber: number, Body: string | Buffer, more: object = {}) =>
      client.send(new UploadPartCommand({ ...upload, PartNumber, Body, ...more }))
    const complete = (upload: Upload, Parts: object[], more: object = {}) =>
      client.send(new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts }, ...more }))

    it('keeps attributes, takes parts in any order, and the last of a number', async () => {
      const upload = await begin('attributes', { ContentType: 'text/plain', Metadata: { a: '1' } })
      const last = await put(upload, 7, 'tail')
      await put(upload, 2, 'replaced')
      const first = await put(upload, 2, big)
      const { Parts } = await client.send(new ListPartsCommand(upload))
      expect(Parts?.map(({ PartNumber, Size }) => [PartNumber, Size])).toEqual([
        [2, big.length],
        [7, 4],
      ])
      await complete(upload, [
        { PartNumber: 2, ETag: first.ETag },
        { PartNumber: 7, ETag: last.ETag },
      ])
      const { Body, ...head } = await client.send(new GetObjectCommand({ Bucket, Key: 'attributes' }))
      expect(head).toMatchObject({ ContentType: 'text/plain', Metadata: { a: '1' } })
      expect(head.ETag).toMatch(/^"[0-9a-f]{32}-2"$/)
      const stored = Buffer.from((await Body?.transformToByteArray()) ?? [])
      expect(stored.equals(Buffer.concat([big, Buffer.from('tail')]))).toBe(true)
      expect((await refusalOf(client.send(new ListPartsCommand(upload)))).status).toBe(404)
    })

    it('refuses parts that were never uploaded, and those out of order where it looks', async () => {
      const upload = await begin('order')
      const one = await put(upload, 1, big)
      const two = await put(upload, 2, big)
      expect((await refusalOf(complete(upload, [{ PartNumber: 3, ETag: one.ETag }]))).code).toBe(
        'InvalidPart',
      )
      expect((await refusalOf(complete(upload, []))).code).toBe('MalformedXML')
      const backwards = complete(upload, [
        { PartNumber: 2, ETag: two.ETag },
        { PartNumber: 1, ETag: one.ETag },
      ])
      if (server().quirks.checksPartNumbers)
        expect((await refusalOf(backwards)).code).toBe('InvalidPartOrder')
      else await backwards
    })

    it('refuses part numbers outside 1 to 10,000 where it looks', async () => {
      const upload = await begin('numbers')
      for (const number of [0, 10_001]) {
        const part = put(upload, number, 'x')
        if (server().quirks.checksPartNumbers) expect((await refusalOf(part)).code).toBe('InvalidArgument')
        else await part
      }
      await client.send(new AbortMultipartUploadCommand(upload))
    })

    it('lists uploads under way, and forgets aborted ones', async () => {
      const uploads = [await begin('list/a'), await begin('list/b')]
      const list = async () => {
        const { Uploads = [] } = await client.send(
          new ListMultipartUploadsCommand({ Bucket, Prefix: 'list/' }),
        )
        return Uploads.map(({ Key }) => Key)
      }
      expect(await list()).toEqual(['list/a', 'list/b'])
      for (const upload of uploads) await client.send(new AbortMultipartUploadCommand(upload))
      expect(await list()).toEqual([])
      const [gone] = uploads
      if (gone !== undefined) expect((await refusalOf(put(gone, 1, 'x'))).code).toBe('NoSuchUpload')
    })
  },
  choose(s3Servers(), first),
)
