import { Readable } from 'node:stream'
import { GetObjectTaggingCommand, HeadObjectCommand, ListMultipartUploadsCommand } from '@aws-sdk/client-s3'
import { expect, it } from 'vitest'
import { holds } from '../../../src/conductor/end/carry.js'
import { assertEncrypts } from '../../../src/grants/assert-encrypts.js'
import { TaskBroker } from '../../../src/grants/broker/task-broker.js'
import { mintGrant } from '../../../src/grants/mint-grant.js'
import { toPolicyFields, toS3Metadata } from '../../../src/protocol/s3-layout.js'
import type { S3ObjectOptions } from '../../../src/stores/s3/object-options.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Store } from '../../../src/stores/s3/s3-store.js'
import { RGW_KMS_KEY } from '../../support/s3/rgw.js'
import { describeEachS3 } from '../../support/s3/servers.js'
import { recordOf } from './attack-table.js'

const TASK = 'worker-o'
const TAGS = { team: 'a & b', kind: 'result' }

describeEachS3('encryption and tags', (server) => {
  /** RGW passes over SSE-S3, and really encrypts with a key of its key service. */
  const own = (): S3ObjectOptions =>
    server().name === 'rgw' ? { sse: 'aws:kms', kmsKeyId: RGW_KMS_KEY } : { sse: 'AES256' }
  const open = async (objects: S3ObjectOptions = own()): Promise<S3Location> => {
    const { url, region, credentials } = server()
    const bucket = await server().createBucket()
    return openS3Location({ bucket, endpoint: url, region, credentials, tags: TAGS, ...objects })
  }
  const expectBoth = async ({ client, bucket }: S3Location, key: string): Promise<void> => {
    const at = { Bucket: bucket, Key: `results/${key}` }
    const { ServerSideEncryption, SSEKMSKeyId } = await client.send(new HeadObjectCommand(at))
    expect({ sse: ServerSideEncryption, kmsKeyId: SSEKMSKeyId }).toEqual({ kmsKeyId: undefined, ...own() })
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
    expect(await post('x-amz-server-side-encryption')).toBe(403)
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

  it('are held against what the store says that it did, before anything is stored and for each result', async () => {
    const at = await open()
    await assertEncrypts(at)
    const record = recordOf(TASK, 'kept', 'x')
    await new S3Store(at).put(record, Readable.from([Buffer.from('x')]))
    expect(await holds(new S3Store(at), record)).toBe(true)
    // RGW does nothing for SSE-S3, nor has its bucket a default; AWS and whoever does as it does have no other key.
    const others: S3ObjectOptions[] =
      server().name === 'rgw'
        ? [{ sse: 'AES256' }, { sse: 'bucket' }]
        : [{ sse: 'bucket', kmsKeyId: 'arn:aws:kms:us-east-1:123456789012:key/k' }]
    for (const objects of others) {
      const other: S3Location = { ...at, objects }
      await expect(assertEncrypts(other)).rejects.toMatchObject({ code: 'NOT_ENCRYPTED' })
      const open = recordOf(TASK, `open-${objects.sse}`, 'x')
      await new S3Store(other).put(open, Readable.from([Buffer.from('x')]))
      await expect(holds(new S3Store(other), open)).rejects.toMatchObject({ code: 'NOT_ENCRYPTED' })
    }
    const { Uploads = [] } = await at.client.send(new ListMultipartUploadsCommand({ Bucket: at.bucket }))
    expect(Uploads).toEqual([])
    at.close()
  })

  it('by a key that the store does not have are refused by it', async (test) => {
    if (server().name !== 'rgw') return test.skip('the local S3 has every key')
    const at = await open({ sse: 'aws:kms', kmsKeyId: 'another' })
    const put = new S3Store(at).put(recordOf(TASK, 'kms', 'x'), Readable.from([Buffer.from('x')]))
    await expect(put).rejects.toMatchObject({ code: 'ACCESS_DENIED' })
    at.close()
  })
})
