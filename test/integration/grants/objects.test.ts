import { Readable } from 'node:stream'
import { GetObjectTaggingCommand, HeadObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { expect, it } from 'vitest'
import { TaskBroker } from '../../../src/grants/broker/task-broker.js'
import { mintGrant } from '../../../src/grants/mint-grant.js'
import { toPolicyFields, toS3Metadata } from '../../../src/protocol/s3-layout.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Store } from '../../../src/stores/s3/s3-store.js'
import { describeEachS3 } from '../../support/s3/servers.js'
import { recordOf } from './attack-table.js'

const TASK = 'worker-o'
const TAGS = { team: 'a & b', kind: 'result' }

describeEachS3('encryption and tags', (server) => {
  /** RGW refuses SSE-S3 without a key service of its own, which is as good a proof that it was asked for. */
  const encrypts = (): boolean => server().name !== 'rgw'
  const open = async (): Promise<S3Location> => {
    const { url, region, credentials } = server()
    const bucket = await server().createBucket()
    const sse = encrypts() ? ({ sse: 'AES256' } as const) : {}
    return openS3Location({ bucket, endpoint: url, region, credentials, tags: TAGS, ...sse })
  }
  const expectBoth = async ({ client, bucket }: S3Location, key: string): Promise<void> => {
    const at = { Bucket: bucket, Key: `results/${key}` }
    const { ServerSideEncryption } = await client.send(new HeadObjectCommand(at))
    expect(ServerSideEncryption).toBe(encrypts() ? 'AES256' : undefined)
    const { TagSet = [] } = await client.send(new GetObjectTaggingCommand(at))
    expect(Object.fromEntries(TagSet.map(({ Key = '', Value }) => [Key, Value]))).toEqual(TAGS)
  }

  it('go with what a worker posts by policy, and it cannot leave them out', async () => {
    const at = await open()
    const grant = await mintGrant({
      taskId: TASK,
      expiresAt: new Date(Date.now() + 60_000),
      s3: at,
      maxResultBytes: 100,
    })
    const record = recordOf(TASK, 'posted', 'x')
    const post = async (drop?: string): Promise<number> => {
      const form = new FormData()
      const { url = '', fields = {} } = grant.s3?.policy ?? {}
      const all: Record<string, string> = { ...fields, ...toPolicyFields(toS3Metadata(record).values) }
      for (const [name, value] of Object.entries({
        ...all,
        'Content-Type': 'a/b',
        key: `results/${record.key}`,
      })) {
        if (name !== drop) form.append(name, value)
      }
      form.append('file', new Blob(['x']))
      return (await fetch(url, { method: 'POST', body: form })).status
    }
    expect(await post('tagging')).toBe(403)
    if (encrypts()) expect(await post('x-amz-server-side-encryption')).toBe(403)
    expect(await post()).toBe(204)
    await expectBoth(at, record.key)
    at.close()
  })

  it('go with what a broker signs, and with what the conductor carries itself', async () => {
    const at = await open()
    const broker = new TaskBroker({ taskId: TASK, at, limits: { maxResultBytes: 100 } })
    const record = recordOf(TASK, 'signed', 'x')
    const answer = await broker.answer(JSON.stringify({ v: 1, id: 'a', op: 'put', record }))
    const [request] = answer?.requests ?? []
    const { 'content-length': _, ...headers } = request?.headers ?? {}
    const { status } = await fetch(request?.url ?? '', { method: 'PUT', headers, body: 'x' })
    expect(status).toBe(200)
    await expectBoth(at, record.key)
    const carried = recordOf(TASK, 'carried', 'y')
    await new S3Store(at).put(carried, Readable.from([Buffer.from('y')]))
    await expectBoth(at, carried.key)
    at.close()
  })

  it('by a key of one’s own are asked for as such', async () => {
    const { url, region, credentials } = server()
    const kms = { sse: 'aws:kms', kmsKeyId: 'arn:aws:kms:us-east-1:1:key/k' } as const
    const at = openS3Location({
      bucket: await server().createBucket(),
      endpoint: url,
      region,
      credentials,
      ...kms,
    })
    const put = new S3Store(at).put(recordOf(TASK, 'kms', 'x'), Readable.from([Buffer.from('x')]))
    if (!encrypts()) {
      await expect(put).rejects.toMatchObject({ code: expect.any(String) })
      // Without it this very store takes the same object.
      const plain = openS3Location({ bucket: at.bucket, endpoint: url, region, credentials })
      await plain.client.send(new PutObjectCommand({ Bucket: at.bucket, Key: 'x', Body: 'x' }))
      plain.close()
    } else {
      await put
      const Key = `results/${recordOf(TASK, 'kms', 'x').key}`
      const head = await at.client.send(new HeadObjectCommand({ Bucket: at.bucket, Key }))
      expect(head).toMatchObject({ ServerSideEncryption: 'aws:kms', SSEKMSKeyId: kms.kmsKeyId })
    }
    at.close()
  })
})
