import { createHash } from 'node:crypto'
import {
  AbortMultipartUploadCommand,
  CopyObjectCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutBucketPolicyCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { TaskBroker } from '../../../src/grants/broker/task-broker.js'
import { mintGrant } from '../../../src/grants/mint-grant.js'
import { mintSession } from '../../../src/grants/session/mint-session.js'
import type { BrokerAnswer, BrokerRequest, SignedRequest } from '../../../src/protocol/broker.js'
import type { GrantPolicy } from '../../../src/protocol/grant.js'
import { toPolicyFields, toS3Metadata } from '../../../src/protocol/s3-layout.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Store } from '../../../src/stores/s3/s3-store.js'
import { describeEachS3, type S3Server } from '../../support/s3/servers.js'
import {
  type Attempt,
  attack,
  contents,
  note,
  type Outcome,
  outcomeOf,
  outcomeOfCall,
  plant,
  recordOf,
  send,
  table,
  textOf,
} from './attack-table.js'

const A = 'worker-a'
const B = 'worker-b'
const MAX_BYTES = 1000
const MEBIBYTE = 1 << 20
const own = recordOf(A, 'own', 'mine')
const ownKey = `results/${own.key}`
const othersKey = `results/${recordOf(B, 'result', '').key}`
const manifestKey = `results/.tasks/${A}.json`
/** Keys outside of A's prefix that somebody might mistake for its own. */
const foreign: readonly (readonly [string, string])[] = [
  ["another task's prefix", `results/${B}/20260114-120000-x`],
  ["another task's result", othersKey],
  ['a task whose id starts alike', `results/${A}0/20260114-120000-x`],
  ['the manifest', manifestKey],
  ["the bucket's root", 'x'],
  ['a slash before it', `/results/${A}/x`],
  ['two slashes in it', `results//${A}/x`],
  ['its id in capitals', `results/WORKER-A/x`],
  ['its id with a Cyrillic a', 'results/worker-а/x'],
  ['its id with a full-width hyphen', 'results/worker－a/x'],
  ['its id, percent-encoded', 'results/worker%2Da/x'],
  ['..', `results/x/../${A}/x`],
]
/** Keys within A's prefix that would be elsewhere if anybody took them for paths; S3 takes them literally. */
const literal: readonly (readonly [string, string])[] = [
  ['.. in its own prefix', `results/${A}/../${B}/x`],
  ['%2e%2e in its own prefix', `results/${A}/%2e%2e/${B}/x`],
  ['// in its own prefix', `results/${A}//x`],
]

const ALL_USERS = 'http://acs.amazonaws.com/groups/global/AllUsers'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

describeEachS3('with the grant of one worker', (server) => {
  let at: S3Location
  /** An upload of B's with one part. */
  let othersUpload: string

  beforeAll(async () => {
    const { url, region, credentials } = server()
    at = openS3Location({ bucket: await server().createBucket(), endpoint: url, region, credentials })
    await plant(at, othersKey, 'secret of b')
    await plant(at, manifestKey, '{"manifest":true}')
    const input = { Bucket: at.bucket, Key: othersKey }
    othersUpload = (await at.client.send(new CreateMultipartUploadCommand(input))).UploadId ?? ''
    await at.client.send(
      new UploadPartCommand({ ...input, UploadId: othersUpload, PartNumber: 1, Body: 'part of b' }),
    )
  })
  afterAll(() => {
    at?.close()
    console.log(`\n${table()}\n`)
  })

  const tryIt = (means: string, attempt: Attempt): Promise<void> =>
    attack({ server: server().name, at, means, own: A }, attempt)
  const tryAll = async (means: string, attempts: readonly Attempt[]): Promise<void> => {
    for (const attempt of attempts) await tryIt(means, attempt)
  }

  describe('a policy', () => {
    let policy: GrantPolicy
    beforeAll(async () => {
      const expiresAt = new Date(Date.now() + 600_000)
      const grant = await mintGrant({ taskId: A, expiresAt, s3: at, maxResultBytes: MAX_BYTES })
      policy = grant.s3?.policy as GrantPolicy
    })
    const post = async (
      key: string,
      body = 'x',
      more: Record<string, string> = {},
      { url, fields }: GrantPolicy = policy,
    ): Promise<Outcome> => {
      const form = new FormData()
      const declared = toPolicyFields(toS3Metadata(own).values)
      const all = { ...fields, ...declared, 'Content-Type': 'text/plain', ...more, key }
      for (const [name, value] of Object.entries(all)) form.append(name, value)
      form.append('file', new Blob([body]))
      return await outcomeOf(await fetch(url, { method: 'POST', body: form }))
    }
    const changed = (change: (text: string) => string): GrantPolicy => {
      const text = change(Buffer.from(policy.fields.Policy ?? '', 'base64').toString())
      return { ...policy, fields: { ...policy.fields, Policy: Buffer.from(text).toString('base64') } }
    }
    const asQuery = (key: string): string => {
      const { key: _, ...fields } = policy.fields
      return `${policy.url.replace(/\/$/, '')}/${key}?${new URLSearchParams(fields).toString()}`
    }

    it('stores nothing outside its prefix', async () => {
      await tryAll(
        'policy',
        foreign.map(([what, key]) => ({ what: `write to ${what}`, make: () => post(key) })),
      )
    })
    it('takes odd names in its own prefix literally', async () => {
      await tryAll(
        'policy',
        literal.map(([what, key]) => ({
          what: `write to ${what}`,
          make: () => post(key),
          instead: 'a key of its own prefix, which no reader takes for a result',
        })),
      )
    })
    it('reads, lists and deletes nothing', async () => {
      const as =
        (method: string, key: string, body?: string): (() => Promise<Outcome>) =>
        async () =>
          outcomeOf(await fetch(asQuery(key), { method, ...(body === undefined ? {} : { body }) }))
      await tryAll('policy', [
        { what: "read another's result", make: as('GET', othersKey) },
        { what: 'list the bucket', make: as('GET', '') },
        { what: 'delete its own result', make: as('DELETE', ownKey) },
        { what: "delete another's result", make: as('DELETE', othersKey) },
        { what: 'PUT instead of POST', make: as('PUT', ownKey, 'x') },
      ])
    })
    it('admits nothing but what it says', async () => {
      await tryAll('policy', [
        { what: 'a larger body', make: () => post(ownKey, 'x'.repeat(MAX_BYTES + 1)) },
        { what: 'undeclared metadata', make: () => post(ownKey, 'x', { 'x-amz-meta-other': 'y' }) },
        { what: 'a public ACL', make: () => post(ownKey, 'x', { acl: 'public-read' }) },
        {
          what: 'a redirect after upload',
          make: () => post(ownKey, 'x', { success_action_redirect: 'http://x' }),
        },
        {
          what: "a policy for another's prefix",
          make: () =>
            post(
              othersKey,
              'x',
              {},
              changed((text) => text.replaceAll(`${A}/`, `${B}/`)),
            ),
        },
        {
          what: 'a policy for a longer time',
          make: () =>
            post(
              ownKey,
              'x',
              {},
              changed((text) => text.replace(/"expiration":"20/, '"expiration":"21')),
            ),
        },
        {
          what: 'a policy for a larger body',
          make: () =>
            post(
              ownKey,
              'x',
              {},
              changed((text) => text.replace(String(MAX_BYTES), '999999')),
            ),
        },
        {
          what: 'another bucket',
          make: async () => {
            const bucket = await server().createBucket()
            const url = policy.url.replace(at.bucket, bucket)
            return post(ownKey, 'x', { bucket }, { ...policy, url })
          },
        },
      ])
    })
    it('ends', async () => {
      const client = new S3Client({
        endpoint: server().url,
        region: server().region,
        credentials: server().credentials,
        forcePathStyle: true,
      })
      const expiresAt = new Date(Date.now() + 1000)
      const grant = await mintGrant({
        taskId: A,
        expiresAt,
        s3: { ...at, client },
        maxResultBytes: MAX_BYTES,
      })
      const short = grant.s3?.policy as GrantPolicy
      const { expiration } = JSON.parse(Buffer.from(short.fields.Policy ?? '', 'base64').toString()) as {
        expiration: string
      }
      while (Date.now() <= Date.parse(expiration) + 1000) await new Promise((done) => setImmediate(done))
      await tryIt('policy', { what: 'after it expired', make: () => post(ownKey, 'x', {}, short) })
      client.destroy()
    })
    it('cannot be kept from overwriting its own result, which the manifest shows', async () => {
      expect(await post(ownKey, 'mine')).toMatchObject({ status: 204 })
      await tryIt('policy', {
        what: 'overwrite its own result',
        make: () => post(ownKey, 'changed'),
        instead: "not to be refused; the manifest's digest gives it away once the task is sealed",
      })
      expect(await textOf(at, ownKey)).toBe('changed')
    })
  })

  describe('a session', () => {
    let session: S3Client | undefined
    beforeAll(async () => {
      const { roleArn, url, region } = server()
      if (roleArn === undefined) {
        note(server().name, 'session', 'all', 'not tried: this server has no STS')
        return
      }
      const expiresAt = new Date(Date.now() + 600_000)
      const { accessKeyId, secretAccessKey, sessionToken } = await mintSession(
        at,
        { roleArn },
        { taskId: A, expiresAt },
      )
      session = clientWith(
        server(),
        { accessKeyId, secretAccessKey, sessionToken },
        { endpoint: url, region },
      )
    })
    afterAll(() => session?.destroy())
    const attempts = (client: S3Client): Attempt[] => {
      const Bucket = at.bucket
      const call = (make: () => Promise<unknown>) => (): Promise<Outcome> => outcomeOfCall(make())
      const others = { Bucket, Key: othersKey }
      const mine = { Bucket, Key: ownKey }
      return [
        ...foreign.map(([what, Key]) => ({
          what: `write to ${what}`,
          make: call(() => client.send(new PutObjectCommand({ Bucket, Key, Body: 'x' }))),
        })),
        { what: "read another's result", make: call(() => client.send(new GetObjectCommand(others))) },
        { what: "head another's result", make: call(() => client.send(new HeadObjectCommand(others))) },
        {
          what: 'read the manifest',
          make: call(() => client.send(new GetObjectCommand({ Bucket, Key: manifestKey }))),
        },
        { what: 'list the bucket', make: call(() => client.send(new ListObjectsV2Command({ Bucket }))) },
        {
          what: "list another's prefix",
          make: call(() => client.send(new ListObjectsV2Command({ Bucket, Prefix: `results/${B}/` }))),
        },
        { what: 'list uploads', make: call(() => client.send(new ListMultipartUploadsCommand({ Bucket }))) },
        { what: 'delete its own result', make: call(() => client.send(new DeleteObjectCommand(mine))) },
        { what: "delete another's result", make: call(() => client.send(new DeleteObjectCommand(others))) },
        {
          what: "copy another's result into its own prefix",
          make: call(() =>
            client.send(
              new CopyObjectCommand({
                Bucket,
                Key: `results/${A}/copy`,
                CopySource: `${Bucket}/${othersKey}`,
              }),
            ),
          ),
        },
        {
          what: "begin an upload in another's prefix",
          make: call(() => client.send(new CreateMultipartUploadCommand(others))),
        },
        {
          what: "add a part to another's upload",
          make: call(() =>
            client.send(
              new UploadPartCommand({ ...others, UploadId: othersUpload, PartNumber: 2, Body: 'x' }),
            ),
          ),
        },
        {
          what: "give up another's upload",
          make: call(() =>
            client.send(new AbortMultipartUploadCommand({ ...others, UploadId: othersUpload })),
          ),
        },
        {
          what: 'make a bucket',
          make: call(() => client.send(new CreateBucketCommand({ Bucket: `${Bucket}-x` }))),
        },
        {
          what: 'open the bucket to everybody',
          make: call(() => client.send(new PutBucketPolicyCommand({ Bucket, Policy: openPolicy(Bucket) }))),
        },
      ]
    }
    it('reaches nothing but its own prefix', async (test) => {
      if (session === undefined) return test.skip('this server has no STS')
      // What it may do, it can: otherwise refusals would prove nothing.
      const Key = `results/${A}/20260114-120000-by-session`
      await session.send(new PutObjectCommand({ Bucket: at.bucket, Key, Body: 'x' }))
      await session.send(new GetObjectCommand({ Bucket: at.bucket, Key }))
      await tryAll('session', attempts(session))
    })
    it('deletes several objects no more than one', async (test) => {
      if (session === undefined) return test.skip('this server has no STS')
      const before = await contents(at)
      const deletion = { Objects: [{ Key: ownKey }, { Key: othersKey }] }
      let said: string
      try {
        const command = new DeleteObjectsCommand({ Bucket: at.bucket, Delete: deletion })
        said = ((await session.send(command)).Errors ?? []).map(({ Code }) => Code).join(' ')
      } catch (error) {
        said = (error as Error).name
      }
      note(server().name, 'session', 'delete several objects', said)
      expect(await contents(at)).toEqual(before)
    })
    it('is worth nothing when its token is missing or changed', async (test) => {
      if (session === undefined) return test.skip('this server has no STS')
      const { sessionToken = '', ...keys } = await session.config.credentials()
      const put = async (token: string | undefined): Promise<Outcome> => {
        const credentials = token === undefined ? keys : { ...keys, sessionToken: token }
        const client = clientWith(server(), credentials)
        const outcome = await outcomeOfCall(
          client.send(new PutObjectCommand({ Bucket: at.bucket, Key: ownKey, Body: 'x' })),
        )
        client.destroy()
        return outcome
      }
      const flipped = `${sessionToken.slice(0, 20)}${sessionToken[20] === 'A' ? 'B' : 'A'}${sessionToken.slice(21)}`
      await tryAll('session', [
        { what: 'without its token', make: () => put(undefined) },
        { what: 'with a changed token', make: () => put(flipped) },
      ])
    })
  })

  describe('what a broker signed', () => {
    let broker: TaskBroker
    let ids = 0
    const brokerWith = (
      location: S3Location,
      more: { maxResults?: number; maxTaskBytes?: number } = {},
    ): TaskBroker =>
      new TaskBroker({
        taskId: A,
        at: location,
        limits: { maxResultBytes: 64 * MEBIBYTE, ...more },
      })
    beforeAll(() => {
      broker = brokerWith(at)
    })
    type Wish = BrokerRequest extends infer R
      ? R extends BrokerRequest
        ? Omit<R, 'v' | 'id'>
        : never
      : never
    const ask = async (wish: Wish | Record<string, unknown>, to = broker): Promise<BrokerAnswer> => {
      const answered = await to.answer(JSON.stringify({ v: 1, id: `r${++ids}`, ...wish }))
      if (answered === undefined) throw new Error('no answer')
      return answered
    }
    const signed = async (wish: Wish, to = broker): Promise<SignedRequest> => {
      const { error, requests } = await ask(wish, to)
      if (requests[0] === undefined) throw new Error(error?.message)
      return requests[0]
    }

    it('stores these very bytes under this very key, once', async () => {
      const record = recordOf(A, 'bound', 'hello')
      const put = await signed({ op: 'put', record })
      const with_ = (headers: Record<string, string | undefined>): SignedRequest => ({
        ...put,
        headers: Object.fromEntries(
          Object.entries({ ...put.headers, ...headers }).filter(
            (pair): pair is [string, string] => pair[1] !== undefined,
          ),
        ),
      })
      const { pathname } = new URL(put.url)
      const to = (key: string): string =>
        `/${at.bucket}/${key.split('/').map(encodeURIComponent).join('/')}?x-id=PutObject`
      const raw = (path: string): string => `/${at.bucket}/${path}?x-id=PutObject`
      await tryAll('broker', [
        ...foreign.map(([what, key]) => ({
          what: `write to ${what}`,
          make: () => send(put, 'hello', to(key)),
        })),
        ...literal.map(([what, key]) => ({
          what: `write to ${what}`,
          make: () => send(put, 'hello', to(key)),
        })),
        { what: '.. in the path', make: () => send(put, 'hello', raw(`results/${A}/../${B}/x`)) },
        { what: '%2e%2e in the path', make: () => send(put, 'hello', raw(`results/${A}/%2e%2e/${B}/x`)) },
        { what: '// in the path', make: () => send(put, 'hello', pathname.replace(`${A}/`, `${A}//`)) },
        { what: 'other content of the same length', make: () => send(put, 'hellx') },
        { what: 'a longer body', make: () => send(put, 'hello!') },
        { what: 'a shorter body', make: () => send(put, 'hell') },
        { what: 'other metadata', make: () => send(with_({ 'x-amz-meta-metadata': '{"n":2}' }), 'hello') },
        { what: 'metadata left out', make: () => send(with_({ 'x-amz-meta-sha256': undefined }), 'hello') },
        { what: 'another content type', make: () => send(with_({ 'content-type': 'text/html' }), 'hello') },
        { what: 'If-None-Match left out', make: () => send(with_({ 'if-none-match': undefined }), 'hello') },
        {
          what: 'another digest',
          make: () => send(with_({ 'x-amz-content-sha256': sha256('hellx') }), 'hellx'),
        },
        {
          what: 'no digest',
          make: () => send(with_({ 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' }), 'hellx'),
        },
        { what: 'a later date', make: () => send(with_({ 'x-amz-date': later(put) }), 'hello') },
        ...['GET', 'HEAD', 'DELETE', 'POST'].map((method) => ({
          what: `${method} instead of PUT`,
          make: () => send({ ...put, method }, method === 'POST' ? 'hello' : ''),
        })),
        { what: 'its tags instead of its body', make: () => send(put, 'hello', `${pathname}?tagging=`) },
        { what: 'its ACL instead of its body', make: () => send(put, 'hello', `${pathname}?acl=`) },
        ...['hello', ''].map((body) => ({
          what: `a copy of another's result${body === '' ? ', without a body' : ''}`,
          make: () => send(with_({ 'x-amz-copy-source': `/${at.bucket}/${othersKey}` }), body),
        })),
        { what: 'public for all', make: () => send(with_({ 'x-amz-acl': 'public-read' }), 'hello') },
        {
          what: 'public for all, by a grant',
          make: () => send(with_({ 'x-amz-grant-read': `uri="${ALL_USERS}"` }), 'hello'),
        },
      ])
      expect(await send(put, 'hello')).toEqual({ status: 200, code: '' })
      await tryAll('broker', [
        { what: 'the same once more', make: () => send(put, 'hello') },
        {
          what: 'overwrite its own result',
          make: async () => {
            // The worker asks for the same key with other content, and gets what its conductor signs for that.
            const other = { ...recordOf(A, 'bound', 'other') }
            return send(await signed({ op: 'put', record: other }), 'other')
          },
        },
      ])
    })

    it('stores nothing as a copy of anything', async () => {
      const record = recordOf(A, 'empty', '')
      const { requests, stored } = await ask({ op: 'put', record })
      const [put] = requests
      const what = "a copy of another's result as an empty one"
      if (put === undefined) {
        note(server().name, 'broker asked', what, `stored by the conductor: ${stored}`)
        expect(stored).toBe(`s3://${at.bucket}/results/${record.key}`)
        return
      }
      const headers = { ...put.headers, 'x-amz-copy-source': `/${at.bucket}/${othersKey}` }
      await tryIt('broker', { what, make: () => send({ ...put, headers }) })
    })

    it('takes further headers only where the store lets them pass, and never beyond its own result', async () => {
      const record = recordOf(A, 'further', 'hello')
      const put = await signed({ op: 'put', record })
      const headers = { ...put.headers, 'x-amz-meta-more': 'y' }
      const what = 'further metadata'
      const make = (): Promise<Outcome> => send({ ...put, headers }, 'hello')
      if (server().quirks.rejectsUnsignedHeaders) await tryIt('broker', { what, make })
      else
        await tryIt('broker', {
          what,
          make,
          instead: 'this store takes what is not signed; only its own result has it',
        })
    })

    it('is worth nothing after its time', async () => {
      const client = clientWith(server(), server().credentials, { systemClockOffset: -16 * 60_000 })
      const late = await signed(
        { op: 'put', record: recordOf(A, 'late', 'hello') },
        brokerWith({ ...at, client }),
      )
      client.destroy()
      await tryIt('broker', { what: 'after it expired', make: () => send(late, 'hello') })
    })

    it('is as strict when the conductor’s clock is wrong', async () => {
      const client = clientWith(server(), server().credentials, {
        systemClockOffset: -16 * 60_000,
        maxAttempts: 2,
      })
      // Asked anew, as of a bucket that nobody has asked about.
      const fresh = { ...at, client, endpoint: `${server().url}/` }
      const record = recordOf(A, 'skewed', 'hello')
      const { requests } = await ask({ op: 'put', record }, brokerWith(fresh))
      const [put] = requests
      if (put === undefined) throw new Error('nothing was signed')
      const headers = { ...put.headers, 'x-amz-acl': 'public-read' }
      await tryIt('broker', {
        what: 'public for all, signed with a wrong clock',
        make: () => send({ ...put, headers }, 'hello'),
      })
      expect(await send(put, 'hello')).toEqual({ status: 200, code: '' })
      client.destroy()
    })

    it('is one part of one upload', async () => {
      const body = 'y'.repeat(6 * MEBIBYTE)
      const record = recordOf(A, 'parts', body)
      const { uploadId = '' } = await ask({ op: 'create', record })
      const other = recordOf(A, 'parts-2', body)
      const { uploadId: second = '' } = await ask({ op: 'create', record: other })
      const part_bytes = 5 * MEBIBYTE
      const first = body.slice(0, part_bytes)
      const rest = body.slice(part_bytes)
      const { requests } = await ask({
        op: 'parts',
        key: record.key,
        upload_id: uploadId,
        size: record.size,
        part_bytes,
        parts: [
          { number: 1, sha256: sha256(first) },
          { number: 2, sha256: sha256(rest) },
        ],
      })
      const [one, two] = requests
      if (one === undefined || two === undefined) throw new Error('no parts')
      const { pathname, search } = new URL(one.url)
      const swap = (from: string | RegExp, to: string): string => `${pathname}${search.replace(from, to)}`
      await tryAll('broker', [
        { what: 'another part number', make: () => send(one, first, swap('partNumber=1', 'partNumber=2')) },
        { what: 'another upload of its own', make: () => send(one, first, swap(uploadId, second)) },
        { what: "another's upload", make: () => send(one, first, swap(uploadId, othersUpload)) },
        {
          what: "another's key",
          make: () => send(one, first, swap('', '').replace(record.key, recordOf(B, 'result', '').key)),
        },
        { what: 'other content in a part', make: () => send(one, `x${first.slice(1)}`) },
        { what: 'a part as the whole', make: () => send(one, first, pathname) },
        {
          what: 'complete with the signature of a part',
          make: () =>
            send(
              { ...one, method: 'POST' },
              '<CompleteMultipartUpload/>',
              `${pathname}?uploadId=${uploadId}`,
            ),
        },
        {
          what: 'give up with the signature of a part',
          make: () => send({ ...one, method: 'DELETE' }, '', `${pathname}?uploadId=${uploadId}`),
        },
      ])
      expect((await send(one, first)).status).toBe(200)
      const refused = await ask({ op: 'complete', record, upload_id: uploadId, part_bytes })
      expect(refused.error).toMatchObject({ code: 'INTEGRITY', missing: [2] })
      expect((await send(two, rest)).status).toBe(200)
      const foreignParts = await ask({ op: 'complete', record: other, upload_id: uploadId, part_bytes })
      note(
        server().name,
        'broker',
        'complete with the parts of another upload',
        foreignParts.error?.code ?? 'done',
      )
      expect(foreignParts.error?.code).toBe('NOT_FOUND')
      const done = await ask({ op: 'complete', record, upload_id: uploadId, part_bytes })
      expect(done.stored).toBe(`s3://${at.bucket}/results/${record.key}`)
      expect((await textOf(at, `results/${record.key}`)).length).toBe(body.length)
      await broker.end()
      const { Uploads = [] } = await at.client.send(new ListMultipartUploadsCommand({ Bucket: at.bucket }))
      expect(Uploads.map(({ UploadId }) => UploadId)).toEqual([othersUpload])
    })

    it('is never signed for anything else', async () => {
      const fresh = brokerWith(at)
      const record = recordOf(A, 'x', 'x')
      const of = (change: Record<string, unknown>): Record<string, unknown> => ({
        op: 'put',
        record: { ...record, ...change },
      })
      const wishes: [string, Record<string, unknown>][] = [
        ["another task's result", { op: 'put', record: recordOf(B, 'x', 'x') }],
        ["another task's key in its own record", of({ key: recordOf(B, 'x', '').key })],
        ['a key that is no result', of({ key: `${A}/x` })],
        ['a name with ..', of({ name: '../x', key: `${A}/20260114-120000-../x` })],
        ['a name with a slash', of({ name: 'x/y', key: `${A}/20260114-120000-x/y` })],
        ['a record of a result', of({ name: 'x.meta.json', key: `${A}/20260114-120000-x.meta.json` })],
        ['a content type with a line end', of({ content_type: 'a\r\nx-amz-acl: public-read' })],
        ['a size below nothing', of({ size: -1 })],
        ['a size that is no number', of({ size: '1' })],
        ['a digest that is none', of({ sha256: 'x' })],
        ["another task's result to read", { op: 'get', key: recordOf(B, 'result', '').key }],
        ['the manifest to read', { op: 'get', key: `.tasks/${A}.json` }],
        ['a key with %2e to read', { op: 'get', key: `${A}/%2e%2e/x` }],
        ['an operation that there is not', { op: 'delete', key: record.key }],
        ['a field that there is not', { op: 'get', key: record.key, bucket: 'other' }],
        [
          "another's upload to be given up",
          { op: 'abort', key: recordOf(B, 'result', '').key, upload_id: othersUpload },
        ],
        [
          "another's upload in parts",
          {
            op: 'parts',
            key: record.key,
            upload_id: 'a b',
            size: 1,
            part_bytes: 5 * MEBIBYTE,
            parts: [{ number: 1, sha256: record.sha256 }],
          },
        ],
        [
          'a part that there is not',
          {
            op: 'parts',
            key: record.key,
            upload_id: 'u',
            size: 1,
            part_bytes: 5 * MEBIBYTE,
            parts: [{ number: 2, sha256: record.sha256 }],
          },
        ],
        ['more than one result may have', of({ size: 65 * MEBIBYTE })],
      ]
      for (const [what, wish] of wishes) {
        const { error, requests, stored } = await ask(wish, fresh)
        note(server().name, 'broker asked', what, error === undefined ? 'signed' : error.code)
        expect({ what, requests, stored, refused: error !== undefined }).toEqual({
          what,
          requests: [],
          stored: undefined,
          refused: true,
        })
      }
      const gone = await ask(
        {
          op: 'complete',
          record: recordOf(A, 'gone', 'x'),
          upload_id: othersUpload,
          part_bytes: 5 * MEBIBYTE,
        },
        fresh,
      )
      note(
        server().name,
        'broker asked',
        "another's upload to be completed as its own",
        gone.error?.code ?? 'done',
      )
      expect(gone.error?.code).toBe('NOT_FOUND')
      expect(await fresh.answer('{"id":"x", not json')).toBeUndefined()
      expect(
        (await fresh.answer(`{"id":"deep","x":${'['.repeat(200_000)}${']'.repeat(200_000)}}`))?.error?.code,
      ).toBe('PROTOCOL')
    })

    it('is never signed beyond a quota, nor after the end', async () => {
      const few = brokerWith(at, { maxResults: 1000, maxTaskBytes: 20 * MEBIBYTE })
      const put = (name: string, size: number): Promise<BrokerAnswer> =>
        ask({ op: 'put', record: { ...recordOf(A, name, ''), size } }, few)
      let already = 0
      for await (const _ of new S3Store(at).list(A)) already += 1
      expect((await put('q1', 10 * MEBIBYTE)).error).toBeUndefined()
      expect((await put('q1', 10 * MEBIBYTE)).error).toBeUndefined()
      const beyond = await put('q2', 11 * MEBIBYTE)
      note(
        server().name,
        'broker asked',
        'more bytes than the task may store',
        beyond.error?.code ?? 'signed',
      )
      expect(beyond.error?.code).toBe('TOO_LARGE')
      const counted = brokerWith(at, { maxResults: already + 1 })
      const both = await Promise.all(
        ['c1', 'c2'].map((name) => ask({ op: 'put', record: recordOf(A, name, 'x') }, counted)),
      )
      // Whichever is asked first has the last place.
      const refused = both.flatMap(({ error }) => (error === undefined ? [] : [error.code]))
      note(server().name, 'broker asked', 'more results than the task may store', refused[0] ?? 'signed')
      expect(refused).toEqual(['TOO_LARGE'])
      const parts = (upload_id: string): Promise<BrokerAnswer> =>
        ask({
          op: 'parts',
          key: recordOf(A, 'u', '').key,
          upload_id,
          size: 1,
          part_bytes: 5 * MEBIBYTE,
          parts: [{ number: 1, sha256: sha256('x') }],
        })
      const made = await Promise.all(Array.from({ length: 70 }, (_, i) => parts(`made-up-${i}`)))
      const codes = made.flatMap(({ error }) => (error === undefined ? [] : [error.code]))
      note(server().name, 'broker asked', 'any number of uploads that there are not', codes[0] ?? 'signed')
      expect(codes.length).toBeGreaterThanOrEqual(6)
      await few.end()
      const closed = await put('q3', 1)
      note(server().name, 'broker asked', 'anything after termination', closed.error?.code ?? 'signed')
      expect(closed.error?.code).toBe('CLOSED')
    })
  })

  it('leaves the others’ results and the manifest as they were', async () => {
    expect(await textOf(at, othersKey)).toBe('secret of b')
    expect(await textOf(at, manifestKey)).toBe('{"manifest":true}')
  })
})

function clientWith(
  { url, region }: S3Server,
  credentials: { accessKeyId: string; secretAccessKey: string; sessionToken?: string },
  more: Record<string, unknown> = {},
): S3Client {
  return new S3Client({
    endpoint: url,
    region,
    credentials,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    maxAttempts: 1,
    ...more,
  })
}

function later({ headers }: SignedRequest): string {
  const date = headers['x-amz-date'] ?? ''
  return `${date.slice(0, -3)}${String((Number(date.slice(-3, -1)) + 1) % 60).padStart(2, '0')}Z`
}

function openPolicy(bucket: string): string {
  const statement = { Effect: 'Allow', Principal: '*', Action: 's3:*', Resource: `arn:aws:s3:::${bucket}/*` }
  return JSON.stringify({ Version: '2012-10-17', Statement: [statement] })
}
