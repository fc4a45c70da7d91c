import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  HeadObjectCommand,
  type S3Client,
  UploadPartCommand,
  type UploadPartCommandOutput,
} from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createClient } from '../../support/s3/client.js'
import { refusalOf } from '../../support/s3/failures.js'
import { type S3Server, startLocalServer } from '../../support/s3/servers.js'

const big = Buffer.alloc(5 * 2 ** 20, 7)

// RGW of Debian 12 knows no such checksums.
describe('local S3: checksums of uploads in parts', () => {
  let server: S3Server
  let client: S3Client
  let Bucket: string

  beforeAll(async () => {
    server = await startLocalServer()
    client = createClient(server)
    Bucket = await server.createBucket()
  })
  afterAll(async () => {
    client?.destroy()
    await server?.[Symbol.asyncDispose]()
  })

  it.each([
    ['SHA256', 'COMPOSITE', /-2$/],
    ['CRC32', 'COMPOSITE', /-2$/],
    ['CRC32', 'FULL_OBJECT', /^[^-]+$/],
    ['CRC32C', 'FULL_OBJECT', /^[^-]+$/],
  ] as const)('keeps %s checksums of the kind %s', async (algorithm, kind, shape) => {
    const name = `Checksum${algorithm}` as const
    const Key = `${algorithm}-${kind}`
    const { UploadId } = await client.send(
      new CreateMultipartUploadCommand({ Bucket, Key, ChecksumAlgorithm: algorithm, ChecksumType: kind }),
    )
    const upload = { Bucket, Key, UploadId }
    const complete = (Parts: object[]) =>
      client.send(new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }))
    const parts: UploadPartCommandOutput[] = []
    for (const body of [big, 'tail']) {
      parts.push(
        await client.send(
          new UploadPartCommand({
            ...upload,
            PartNumber: parts.length + 1,
            Body: body,
            ChecksumAlgorithm: algorithm,
          }),
        ),
      )
    }
    const listed = parts.map((part, i) => ({ PartNumber: i + 1, ETag: part.ETag, [name]: part[name] }))
    const wrong = listed.map((part) => ({ ...part, [name]: 'AAAAAA==' }))
    expect((await refusalOf(complete(wrong))).code).toBe('InvalidPart')
    expect((await complete(listed))[name]).toMatch(shape)
    const head = await client.send(new HeadObjectCommand({ Bucket, Key, ChecksumMode: 'ENABLED' }))
    expect(head[name]).toMatch(shape)
    expect(head.ChecksumType).toBe(kind)
    // The SDK holds a checksum of the whole against the bytes it reads.
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key, ChecksumMode: 'ENABLED' }))
    expect((await Body?.transformToByteArray())?.length).toBe(big.length + 4)
    const second = await client.send(new GetObjectCommand({ Bucket, Key, PartNumber: 2 }))
    expect([await second.Body?.transformToString(), second.PartsCount]).toEqual(['tail', 2])
  })
})
