import { createHash, randomBytes } from 'node:crypto'
import { GetObjectTaggingCommand, HeadObjectCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { mintToken } from '../../../src/endpoint/token.js'
import { TaskBroker } from '../../../src/grants/broker/task-broker.js'
import { Granter } from '../../../src/grants/granter.js'
import { mintGrant } from '../../../src/grants/mint-grant.js'
import { type BrokerAnswer, parseBrokerAnswer, type SignedRequest } from '../../../src/protocol/broker.js'
import type { GrantPolicy } from '../../../src/protocol/grant.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { toPolicyFields, toS3Metadata } from '../../../src/protocol/s3-layout.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { describeEachS3 } from '../../support/s3/servers.js'
import {
  type Attempt,
  attack,
  note,
  type Outcome,
  outcomeOf,
  plant,
  recordOf,
  send,
  table,
  textOf,
} from './attack-table.js'

const A = 'worker-a'
const B = 'worker-b'
const MEBIBYTE = 1 << 20
const othersKey = `results/${recordOf(B, 'result', '').key}`
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
/** What a store says that takes a header without minding it. */
const OWN_ONLY = 'this store takes what is not signed; only its own result has it'

/** What a request says that it is, and what it turns out to be. */
describeEachS3('a request in disguise', (server) => {
  let at: S3Location
  let broker: TaskBroker
  let policy: GrantPolicy
  let ids = 0
  beforeAll(async () => {
    const { url, region, credentials } = server()
    at = openS3Location({ bucket: await server().createBucket(), endpoint: url, region, credentials })
    await plant(at, othersKey, 'secret of b')
    broker = new TaskBroker({ taskId: A, at, limits: { maxResultBytes: 64 * MEBIBYTE } })
    const expiresAt = new Date(Date.now() + 600_000)
    const grant = await mintGrant({ taskId: A, expiresAt, s3: at, maxResultBytes: 1000 })
    policy = grant.s3?.policy as GrantPolicy
  })
  afterAll(async () => {
    await broker?.end()
    at?.close()
    console.log(`\n${table()}\n`)
  })
  const tryAll = async (means: string, attempts: readonly Attempt[]): Promise<void> => {
    for (const attempt of attempts) await attack({ server: server().name, at, means, own: A }, attempt)
  }
  const ask = async (wish: Record<string, unknown>, to = broker): Promise<BrokerAnswer> => {
    const answered = await to.answer(JSON.stringify({ v: 1, id: `r${++ids}`, ...wish }))
    if (answered === undefined) throw new Error('no answer')
    return answered
  }
  const signed = async (wish: Record<string, unknown>): Promise<SignedRequest> => {
    const { error, requests } = await ask(wish)
    if (requests[0] === undefined) throw new Error(error?.message)
    return requests[0]
  }

  it('is refused with a header that its signature does not know', async () => {
    let n = 0
    const further = async (headers: Record<string, string>): Promise<Outcome> => {
      const put = await signed({ op: 'put', record: recordOf(A, `further-${++n}`, 'hello') })
      return send({ ...put, headers: { ...put.headers, ...headers } }, 'hello')
    }
    const strict = server().quirks.rejectsUnsignedHeaders
    const unsigned: Record<string, Record<string, string>> = {
      tags: { 'x-amz-tagging': 'keep=forever' },
      'a redirect for visitors': { 'x-amz-website-redirect-location': 'http://evil.example/' },
      'another storage class': { 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
      'a checksum by another algorithm': {
        'x-amz-checksum-crc32': 'AAAAAA==',
        'x-amz-sdk-checksum-algorithm': 'CRC32',
      },
      'a length before decoding': { 'x-amz-decoded-content-length': '3' },
    }
    await tryAll(
      'broker',
      Object.entries(unsigned).map(([what, headers]) => ({
        what,
        make: () => further(headers),
        // RGW knows no class that it was not told of.
        ...(strict || what === 'another storage class' ? {} : { instead: OWN_ONLY }),
      })),
    )
    await tryAll('broker', [
      {
        what: 'DELETE as a method to be taken instead',
        make: () =>
          further({
            'x-http-method-override': 'DELETE',
            'x-http-method': 'DELETE',
            'x-method-override': 'DELETE',
          }),
        instead: 'no store knows it; the very result is stored',
      },
      {
        what: 'another path to be taken instead',
        make: () =>
          further({
            'x-original-url': `/${at.bucket}/${othersKey}`,
            'x-rewrite-url': `/${at.bucket}/${othersKey}`,
          }),
        instead: 'no store knows it; the very result is stored',
      },
      { what: "another bucket's host", make: () => further({ host: `other.${new URL(server().url).host}` }) },
      { what: 'the host of another port', make: () => further({ host: '127.0.0.1:1' }) },
      {
        what: 'a second Authorization in the query',
        make: async () => {
          const put = await signed({ op: 'put', record: recordOf(A, 'twice', 'hello') })
          const { pathname, search } = new URL(put.url)
          return send(
            put,
            'hello',
            `${pathname}${search}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=x&X-Amz-Signature=y`,
          )
        },
      },
    ])
    expect(await textOf(at, othersKey)).toBe('secret of b')
    if (!strict) {
      // What it lets pass it lets pass for that result alone, which is what it was.
      const Key = `results/${recordOf(A, 'further-1', '').key}`
      const { TagSet } = await at.client.send(new GetObjectTaggingCommand({ Bucket: at.bucket, Key }))
      expect(TagSet).toEqual([{ Key: 'keep', Value: 'forever' }])
      expect(await textOf(at, Key)).toBe('hello')
    }
  })

  it('is refused with a body in another framing than it was signed in', async () => {
    const framed = '5;chunk-signature=0\r\nhello\r\n0;chunk-signature=0\r\n\r\n'
    const put = await signed({ op: 'put', record: recordOf(A, 'framed', 'hello') })
    const as = (headers: Record<string, string>): SignedRequest => ({
      ...put,
      headers: { ...put.headers, ...headers },
    })
    const chunked = { 'content-encoding': 'aws-chunked', 'x-amz-decoded-content-length': '5' }
    const { 'content-length': _, ...unmeasured } = put.headers
    await tryAll('broker', [
      ...['STREAMING-AWS4-HMAC-SHA256-PAYLOAD', 'STREAMING-UNSIGNED-PAYLOAD-TRAILER', 'UNSIGNED-PAYLOAD'].map(
        (digest) => ({
          what: `a body in chunks, as ${digest}`,
          make: () => send(as({ ...chunked, 'x-amz-content-sha256': digest }), framed),
        }),
      ),
      { what: 'a body in chunks under its own digest', make: () => send(as(chunked), framed) },
      {
        what: 'a body in chunks of HTTP instead of a length',
        make: () =>
          send(
            { ...put, headers: { ...unmeasured, 'transfer-encoding': 'chunked' } },
            'hello there',
            undefined,
            { measured: false },
          ),
      },
    ])
  })

  it('is refused with a query that it was not signed with', async () => {
    const put = await signed({ op: 'put', record: recordOf(A, 'query', 'hello') })
    const get = await signed({ op: 'get', key: recordOf(A, 'query', 'hello').key })
    const more = (to: SignedRequest, query: string, body = ''): (() => Promise<Outcome>) => {
      const { pathname, search } = new URL(to.url)
      return () => send(to, body, `${pathname}${search}&${query}`)
    }
    const type = 'response-content-type=text%2Fhtml'
    await tryAll('broker', [
      ...[
        'uploads=',
        'acl=',
        'tagging=',
        'retention=',
        'versionId=null',
        'partNumber=1&uploadId=x',
        'x-amz-acl=public-read',
      ].map((query) => ({ what: `?${query} added to a PUT`, make: more(put, query, 'hello') })),
      ...[type, 'response-content-disposition=attachment', 'versions=', 'acl=', 'list-type=2'].map(
        (query) => ({
          what: `?${query} added to a GET`,
          make: more(get, query),
        }),
      ),
      { what: 'a GET as a HEAD', make: () => send({ ...get, method: 'HEAD' }) },
      { what: 'a GET as a DELETE', make: () => send({ ...get, method: 'DELETE' }) },
      {
        what: "a GET of another's result",
        make: () => send(get, '', `/${at.bucket}/${othersKey}?x-id=GetObject`),
      },
      {
        what: 'an absolute address in the request line',
        make: () => send(put, 'hello', `${server().url}/${at.bucket}/${othersKey}`),
      },
    ])
  })

  it('is refused as a form with fields that its policy does not name', async () => {
    const key = `results/${recordOf(A, 'form', '').key}`
    const post = async (
      fields: readonly (readonly [string, string])[],
      { before = [], drop = '' }: { before?: readonly (readonly [string, string])[]; drop?: string } = {},
    ): Promise<Outcome> => {
      const form = new FormData()
      for (const [name, value] of before) form.append(name, value)
      const declared = toPolicyFields(toS3Metadata(recordOf(A, 'form', 'x')).values)
      const own = { ...policy.fields, ...declared, 'Content-Type': 'text/plain', key }
      for (const [name, value] of Object.entries(own)) if (name !== drop) form.append(name, value)
      for (const [name, value] of fields) form.append(name, value)
      form.append('file', new Blob(['x']), '../../worker-b/x')
      return outcomeOf(await fetch(policy.url, { method: 'POST', body: form }))
    }
    const extra: Record<string, string> = {
      'x-amz-website-redirect-location': 'http://evil.example/',
      'x-amz-storage-class': 'REDUCED_REDUNDANCY',
      'x-amz-copy-source': `/${at.bucket}/${othersKey}`,
      'Content-Disposition': 'inline',
      'Content-Encoding': 'gzip',
      'Cache-Control': 'max-age=1',
      Expires: 'never',
      success_action_status: '201',
      tagging: '<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>',
      'x-amz-server-side-encryption-customer-algorithm': 'AES256',
      'x-amz-security-token': 'x',
    }
    await tryAll('policy', [
      ...Object.entries(extra).map(([name, value]) => ({
        what: `a field ${name}`,
        make: () => post([[name, value]]),
      })),
      { what: 'a second key, of another task, behind its own', make: () => post([['key', othersKey]]) },
      {
        what: 'a second key, of another task, before its own',
        make: () => post([], { before: [['key', othersKey]] }),
        instead: 'one of them counts for both the policy and the object',
      },
      { what: 'no key', make: () => post([], { drop: 'key' }) },
      { what: 'no policy', make: () => post([], { drop: 'Policy' }) },
      { what: 'no signature', make: () => post([], { drop: 'X-Amz-Signature' }) },
      {
        what: 'an older algorithm',
        make: () =>
          post(
            [
              ['AWSAccessKeyId', 'x'],
              ['signature', 'y'],
            ],
            { drop: 'X-Amz-Algorithm' },
          ),
      },
      {
        what: 'a content type left out',
        make: () => post([], { drop: 'Content-Type' }),
        // RGW holds what is missing to begin with nothing.
        ...(server().name === 'rgw' ? { instead: 'any type is allowed, and none is none' } : {}),
      },
    ])
    expect(await textOf(at, othersKey)).toBe('secret of b')
  })

  it('gets no more together out of parts than went into them', async () => {
    const body = 'z'.repeat(6 * MEBIBYTE)
    const part_bytes = 5 * MEBIBYTE
    const [first, rest] = [body.slice(0, part_bytes), body.slice(part_bytes)]
    const record = recordOf(A, 'swapped', body)
    const { uploadId = '' } = await ask({ op: 'create', record })
    const parts = [first, rest].map((text, i) => ({ number: i + 1, sha256: sha256(text) }))
    const { requests } = await ask({
      op: 'parts',
      key: record.key,
      upload_id: uploadId,
      size: record.size,
      part_bytes,
      parts,
    })
    const [one, two] = requests
    if (one === undefined || two === undefined) throw new Error('no parts')
    const complete = (of: ResultRecord): Promise<BrokerAnswer> =>
      ask({ op: 'complete', record: of, upload_id: uploadId, part_bytes })
    await tryAll('broker', [
      { what: "one part's bytes in another's place", make: () => send(one, rest) },
      { what: "the other part's bytes in the first one's place", make: () => send(two, first) },
    ])
    expect((await send(one, first)).status).toBe(200)
    const asked: [string, ResultRecord][] = [
      ['complete with a part missing', record],
      ['complete as more than its parts', { ...record, size: record.size + part_bytes }],
      ["complete under another task's name", { ...recordOf(B, 'swapped', body) }],
      ['complete under another key of its own', recordOf(A, 'other', first)],
    ]
    for (const [what, of] of asked) {
      const { error, stored } = await complete(of)
      note(server().name, 'broker asked', what, error?.code ?? 'done')
      expect({ what, stored, refused: error !== undefined }).toEqual({
        what,
        stored: undefined,
        refused: true,
      })
    }
    // Fewer parts than were begun for are a smaller result, and it reads as what it is not: its digest gives it away.
    const fewer = await complete({ ...record, size: part_bytes })
    note(
      server().name,
      'broker asked',
      'complete with fewer parts',
      `stored: ${fewer.stored}, whose digest is another's`,
    )
    const Key = `results/${record.key}`
    const { Metadata } = await at.client.send(new HeadObjectCommand({ Bucket: at.bucket, Key }))
    expect(Metadata?.sha256).toBe(sha256(body))
    expect(sha256(await textOf(at, Key))).not.toBe(sha256(body))
  })

  it('is refused by the conductor in JSON that two readers could read in two ways', async () => {
    const record = recordOf(A, 'json', 'x')
    const others = JSON.stringify(recordOf(B, 'json', 'x'))
    const own = JSON.stringify(record)
    const refused: [string, string][] = [
      ['two records, the other one last', `{"v":1,"id":"j","op":"put","record":${own},"record":${others}}`],
      ['a prototype with an operation', `{"v":1,"id":"j","__proto__":{"op":"put","record":${others}}}`],
      ['a prototype beside an operation', `{"v":1,"id":"j","op":"put","record":${own},"__proto__":{"x":1}}`],
      [
        "a record whose prototype is another's",
        `{"v":1,"id":"j","op":"put","record":{"__proto__":${others}}}`,
      ],
      ['a constructor', `{"v":1,"id":"j","op":"put","record":${own},"constructor":{"prototype":{"x":1}}}`],
      ['a list of operations', `{"v":1,"id":"j","op":["put"],"record":${own}}`],
      ['an operation named like one of every object', `{"v":1,"id":"j","op":"toString","record":${own}}`],
      [
        'a size in another notation',
        `{"v":1,"id":"j","op":"put","record":${own.replace('"size":1', '"size":1e400')}}`,
      ],
    ]
    for (const [what, text] of refused) {
      const answered = await broker.answer(text)
      note(server().name, 'broker asked', what, answered?.error?.code ?? 'signed')
      expect({ what, requests: answered?.requests, refused: answered?.error !== undefined }).toEqual({
        what,
        requests: [],
        refused: true,
      })
    }
    // The last of two counts, for every reader here: what was checked is what is signed.
    const twice = await broker.answer(`{"v":1,"id":"j","op":"put","record":${others},"record":${own}}`)
    expect(twice?.requests[0]?.url).toContain(`/results/${record.key}`)
    expect(({} as Record<string, unknown>).x).toBeUndefined()
  })

  it('is refused over HTTPS without the very token', async () => {
    const tokenSecret = randomBytes(32).toString('hex')
    const options = {
      s3: at,
      maxResultBytes: 1000,
      broker: { url: 'https://conductor.example/', tokenSecret },
    }
    const granter = new Granter(options)
    const handler = granter.handler()
    const soon = new Date(Date.now() + 60_000)
    const token = (change: Partial<Parameters<typeof mintToken>[0]> = {}): string =>
      mintToken({ secret: tokenSecret, taskId: A, scope: ['write', 'read'], expiresAt: soon, ...change })
    const request = (
      authorization: string | undefined,
      method = 'POST',
      record = recordOf(A, 'https', 'x'),
    ): Promise<Response> =>
      handler(
        new Request(options.broker.url, {
          method,
          headers: authorization === undefined ? {} : { authorization },
          ...(method === 'POST' ? { body: JSON.stringify({ v: 1, id: 'h', op: 'put', record }) } : {}),
        }),
      )
    const own = token()
    const [, payload = '', signature = ''] = own.split('.')
    const wider = Buffer.from(payload, 'base64url').toString().replace(A, '*')
    const refused: Record<string, string | undefined> = {
      'no token': undefined,
      'an empty token': 'Bearer ',
      'a token as a password': `Basic ${Buffer.from(`x:${own}`).toString('base64')}`,
      'a token of another secret': `Bearer ${token({ secret: randomBytes(32).toString('hex') })}`,
      'a token that is over': `Bearer ${token({ expiresAt: new Date(Date.now() - 1000) })}`,
      'a token that only reads': `Bearer ${token({ scope: ['read'] })}`,
      'a token for every task': `Bearer ${token({ taskId: '*' })}`,
      'a token with another claim': `Bearer stu1.${Buffer.from(wider).toString('base64url')}.${signature}`,
      'a token without its signature': `Bearer stu1.${payload}.`,
      'two tokens': `Bearer ${own}, Bearer ${token({ taskId: B })}`,
    }
    for (const [what, authorization] of Object.entries(refused)) {
      const { status } = await request(authorization)
      note(server().name, 'broker by HTTPS', what, String(status))
      expect({ what, refused: status === 401 || status === 403 }).toEqual({ what, refused: true })
    }
    expect((await request(`Bearer ${own}`, 'GET')).status).toBe(405)
    const foreign = await request(`Bearer ${token({ taskId: B })}`)
    const said = parseBrokerAnswer('h', await foreign.text())
    note(server().name, 'broker by HTTPS', "another task's own token", said?.error?.code ?? 'signed')
    expect(said?.error?.code).toBe('ACCESS_DENIED')
    // What it may do, it can: otherwise refusals would prove nothing.
    const fine = await request(`Bearer ${own}`)
    expect(parseBrokerAnswer('h', await fine.text())?.requests).toHaveLength(1)
    await granter.end(A)
    const replayed = await request(`Bearer ${own}`)
    note(server().name, 'broker by HTTPS', 'its own token after termination', String(replayed.status))
    expect(replayed.status).toBe(404)
    // The task's next sandbox, such as that of a worker that was begun again, is answered.
    await granter.issue({ taskId: A, expiresAt: soon, access: 'broker' })
    expect((await request(`Bearer ${own}`)).status).toBe(200)
  })
})
