import {
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  DeleteBucketEncryptionCommand,
  GetBucketEncryptionCommand,
  GetObjectCommand,
  HeadObjectCommand,
  PutBucketEncryptionCommand,
  PutObjectCommand,
  type ServerSideEncryptionRule,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { createPresignedPost } from '@aws-sdk/s3-presigned-post'
import { describe, expect, it } from 'vitest'
import { assertEncrypts } from '../../../src/grants/assert-encrypts.js'
import { startLocalS3 } from '../../../src/local/s3/index.js'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'
import { createClient } from '../../support/s3/client.js'
import { makeTempDir } from '../../support/temp-dir.js'

const KEY = 'arn:aws:kms:us-east-1:123456789012:key/k'
const byKey: ServerSideEncryptionRule = {
  ApplyServerSideEncryptionByDefault: { SSEAlgorithm: 'aws:kms', KMSMasterKeyID: KEY },
  BucketKeyEnabled: true,
}
const encrypted = { ServerSideEncryption: 'aws:kms', SSEKMSKeyId: KEY, BucketKeyEnabled: true }

// No other server here has it: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-encryption.html
describe("the default encryption of the local S3's buckets", () => {
  it('is told of every object that did not ask for another, however it was stored, and outlives the server', async () => {
    await using dir = await makeTempDir()
    const Bucket = 'bucket'
    const options = { dataDir: dir.path, buckets: [Bucket] }
    let server = await startLocalS3(options)
    let client = createClient(server)
    try {
      await client.send(new PutObjectCommand({ Bucket, Key: 'before', Body: 'x' }))
      await client.send(
        new PutBucketEncryptionCommand({ Bucket, ServerSideEncryptionConfiguration: { Rules: [byKey] } }),
      )
      await server.close()
      client.destroy()
      server = await startLocalS3(options)
      client = createClient(server)
      const { ServerSideEncryptionConfiguration } = await client.send(
        new GetBucketEncryptionCommand({ Bucket }),
      )
      expect(ServerSideEncryptionConfiguration?.Rules).toEqual([byKey])

      expect(await client.send(new PutObjectCommand({ Bucket, Key: 'put', Body: 'x' }))).toMatchObject(
        encrypted,
      )
      const asked = { ServerSideEncryption: 'AES256' } as const
      expect(
        await client.send(new PutObjectCommand({ Bucket, Key: 'asked', Body: 'x', ...asked })),
      ).toMatchObject(asked)
      const part = { Bucket, Key: 'parts' }
      const begun = await client.send(new CreateMultipartUploadCommand(part))
      expect(begun).toMatchObject(encrypted)
      const upload = { ...part, UploadId: begun.UploadId }
      const sent = await client.send(new UploadPartCommand({ ...upload, PartNumber: 1, Body: 'x' }))
      expect(sent).toMatchObject(encrypted)
      const Parts = [{ PartNumber: 1, ETag: sent.ETag }]
      const done = await client.send(
        new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }),
      )
      expect(done).toMatchObject(encrypted)
      const copied = { Bucket, Key: 'copied', CopySource: `${Bucket}/asked` }
      expect(await client.send(new CopyObjectCommand(copied))).toMatchObject(encrypted)
      const { url, fields } = await createPresignedPost(client, { Bucket, Key: 'posted' })
      const form = new FormData()
      for (const [name, value] of Object.entries(fields)) form.append(name, value)
      form.append('file', new Blob(['x']))
      const posted = await fetch(url, { method: 'POST', body: form })
      expect(posted.headers.get('x-amz-server-side-encryption')).toBe('aws:kms')

      for (const Key of ['put', 'parts', 'copied', 'posted']) {
        expect(await client.send(new HeadObjectCommand({ Bucket, Key }))).toMatchObject(encrypted)
        expect(await client.send(new GetObjectCommand({ Bucket, Key }))).toMatchObject(encrypted)
      }
      for (const Key of ['before', 'asked']) {
        const head = await client.send(new HeadObjectCommand({ Bucket, Key }))
        expect(head).toMatchObject(asked)
        expect(head.SSEKMSKeyId).toBeUndefined()
      }
      await client.send(new DeleteBucketEncryptionCommand({ Bucket }))
      expect(await client.send(new PutObjectCommand({ Bucket, Key: 'after', Body: 'x' }))).toMatchObject(
        asked,
      )
    } finally {
      client.destroy()
      await server.close()
    }
  })

  it('is refused where it makes no sense, and to whoever has no right to it', async () => {
    const owner = { accessKeyId: 'OWNER', secretAccessKey: 'owner' }
    const clerk = {
      accessKeyId: 'CLERK',
      secretAccessKey: 'clerk',
      allow: [{ bucket: 'bucket', actions: ['s3:PutObject'] as const }],
    }
    await using server = await startLocalS3({ buckets: ['bucket'], credentials: [owner, clerk] })
    const put = async (rule: ServerSideEncryptionRule, credentials = owner): Promise<string> => {
      const client = createClient({ ...server, credentials })
      try {
        await client.send(
          new PutBucketEncryptionCommand({
            Bucket: 'bucket',
            ServerSideEncryptionConfiguration: { Rules: [rule] },
          }),
        )
        return 'done'
      } catch (error) {
        return (error as Error).name
      } finally {
        client.destroy()
      }
    }
    const by = (SSEAlgorithm: string, KMSMasterKeyID?: string): ServerSideEncryptionRule =>
      ({ ApplyServerSideEncryptionByDefault: { SSEAlgorithm, KMSMasterKeyID } }) as ServerSideEncryptionRule
    expect(await put(by('AES256', KEY))).toBe('InvalidArgument')
    expect(await put(by('rot13'))).toBe('MalformedXML')
    expect(await put({})).toBe('MalformedXML')
    expect(await put(byKey, clerk)).toBe('AccessDenied')

    // Who may only write is told as well that it is not the one that was wanted.
    const at = openS3Location({
      bucket: 'bucket',
      endpoint: server.url,
      region: server.region,
      credentials: clerk,
      sse: 'bucket',
      kmsKeyId: KEY,
    })
    await expect(assertEncrypts(at)).rejects.toMatchObject({ code: 'NOT_ENCRYPTED' })
    at.close()
  })
})
