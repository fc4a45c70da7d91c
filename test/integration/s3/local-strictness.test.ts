import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import {
  CopyObjectCommand,
  DeleteObjectsCommand,
  GetBucketAclCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
  UploadPartCopyCommand,
} from '@aws-sdk/client-s3'
import { createPresignedPost } from '@aws-sdk/s3-presigned-post'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import aws4 from 'aws4'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type LocalS3, type LocalS3Options, startLocalS3 } from '../../../src/local/s3/index.js'
import { createClient } from '../../support/s3/client.js'
import { refusalIn, refusalOf } from '../../support/s3/failures.js'

const Bucket = 'strict'

/** Runs a test with a server of its own and a client for it. */
async function withServer(
  options: LocalS3Options,
  test: (server: LocalS3, client: S3Client) => Promise<void>,
): Promise<void> {
  await using server = await startLocalS3({ buckets: [Bucket], ...options })
  const client = createClient(server)
  try {
    await test(server, client)
  } finally {
    client.destroy()
  }
}

/** Signs with a signer that is not AWS's. */
function signWithAws4({ url, region, credentials }: LocalS3, request: aws4.Request): Record<string, string> {
  const { accessKeyId, secretAccessKey } = credentials
  const { host } = new URL(url)
  const signed = aws4.sign({ host, service: 's3', region, ...request }, { accessKeyId, secretAccessKey })
  return signed.headers as Record<string, string>
}

/** Sends a request byte for byte, as `fetch` will not. */
async function send(
  server: LocalS3,
  options: { method: string; path: string; headers: Record<string, string | number>; body?: string | Buffer },
): Promise<Response> {
  const { port } = server
  return new Promise((resolve, reject) => {
    const request = httpRequest({ ...options, host: '127.0.0.1', port }, (response) => {
      text(response).then((body) => resolve(new Response(body, { status: response.statusCode ?? 0 })), reject)
    })
    request.on('error', reject)
    request.end(options.body)
  })
}

describe('local S3: restricted credentials', () => {
  const all = { accessKeyId: 'ALL', secretAccessKey: 'all-secret' }
  const worker = {
    accessKeyId: 'WORKER',
    secretAccessKey: 'worker-secret',
    allow: [
      {
        bucket: Bucket,
        prefix: 'r/mine/',
        actions: ['s3:PutObject', 's3:GetObject', 's3:DeleteObject'] as const,
      },
      { bucket: Bucket, prefix: 'r/shared/', actions: ['s3:ListBucket', 's3:GetObject'] as const },
    ],
  }
  let server: LocalS3
  let client: S3Client
  let admin: S3Client

  beforeAll(async () => {
    server = await startLocalS3({ buckets: [Bucket, 'elsewhere'], credentials: [all, worker] })
    admin = createClient(server)
    client = createClient({ ...server, credentials: worker })
    for (const Key of ['r/mine/a', 'r/shared/a', 'r/other/a']) {
      await admin.send(new PutObjectCommand({ Bucket, Key, Body: Key }))
    }
  })
  afterAll(async () => {
    client?.destroy()
    admin?.destroy()
    await server?.close()
  })

  const denied = { status: 403, code: 'AccessDenied' }

  it('hands out its first key pair', () => {
    expect(server.credentials).toBe(all)
    expect(server.env).toMatchObject({ AWS_ENDPOINT_URL_S3: server.url, AWS_ACCESS_KEY_ID: 'ALL' })
  })

  it('reach what they are allowed', async () => {
    await client.send(new PutObjectCommand({ Bucket, Key: 'r/mine/b', Body: 'x' }))
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key: 'r/shared/a' }))
    expect(await Body?.transformToString()).toBe('r/shared/a')
    const { KeyCount } = await client.send(new ListObjectsV2Command({ Bucket, Prefix: 'r/shared/' }))
    expect(KeyCount).toBe(1)
  })

  it('reach nothing else', async () => {
    const put = (bucket: string, Key: string) =>
      refusalOf(client.send(new PutObjectCommand({ Bucket: bucket, Key, Body: 'x' })))
    expect(await put(Bucket, 'r/other/b')).toMatchObject(denied)
    expect(await put(Bucket, 'r/shared/b')).toMatchObject(denied)
    expect(await put('elsewhere', 'r/mine/b')).toMatchObject(denied)
    const list = (Prefix?: string) => refusalOf(client.send(new ListObjectsV2Command({ Bucket, Prefix })))
    expect(await list()).toMatchObject(denied)
    expect(await list('r/')).toMatchObject(denied)
    expect(await list('r/mine/')).toMatchObject(denied)
    const copy = new CopyObjectCommand({ Bucket, Key: 'r/mine/stolen', CopySource: `${Bucket}/r/other/a` })
    expect(await refusalOf(client.send(copy))).toMatchObject(denied)
  })

  it('do not learn whether a key exists without the right to list', async () => {
    const get = (Key: string) => refusalOf(client.send(new GetObjectCommand({ Bucket, Key })))
    expect(await get('r/mine/absent')).toMatchObject(denied)
    expect(await get('r/shared/absent')).toMatchObject({ status: 404, code: 'NoSuchKey' })
  })

  it('delete only the keys they may among many', async () => {
    const Objects = [{ Key: 'r/mine/a' }, { Key: 'r/other/a' }]
    const { Deleted, Errors } = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }))
    expect(Deleted?.map(({ Key }) => Key)).toEqual(['r/mine/a'])
    expect(Errors).toMatchObject([{ Key: 'r/other/a', Code: 'AccessDenied' }])
    await admin.send(new HeadObjectCommand({ Bucket, Key: 'r/other/a' }))
  })

  it('cannot sign URLs and forms that reach further than they do', async () => {
    const url = await getSignedUrl(client, new PutObjectCommand({ Bucket, Key: 'r/other/url' }))
    expect(await refusalIn(await fetch(url, { method: 'PUT', body: 'x' }))).toMatchObject(denied)
    const { url: action, fields } = await createPresignedPost(client, { Bucket, Key: 'r/other/form' })
    const form = new FormData()
    for (const [name, value] of Object.entries(fields)) form.append(name, value)
    form.append('file', new Blob(['x']))
    expect(await refusalIn(await fetch(action, { method: 'POST', body: form }))).toMatchObject(denied)
  })
})

describe('local S3: temporary credentials', () => {
  const session = { accessKeyId: 'TEMP', secretAccessKey: 'temp-secret', sessionToken: 'the-token' }
  const put = { Bucket, Key: 'k', Body: 'x' }

  it('need their token, in headers, URLs and forms', () =>
    withServer({ credentials: [session] }, async (server, client) => {
      await client.send(new PutObjectCommand(put))
      const url = await getSignedUrl(client, new GetObjectCommand({ Bucket, Key: 'k' }))
      expect((await fetch(url)).status).toBe(200)
      const { url: action, fields } = await createPresignedPost(client, { Bucket, Key: 'form' })
      for (const token of [session.sessionToken, 'another']) {
        const form = new FormData()
        for (const [name, value] of Object.entries({ ...fields, 'X-Amz-Security-Token': token }))
          form.append(name, value)
        form.append('file', new Blob(['x']))
        const response = await fetch(action, { method: 'POST', body: form })
        if (token === session.sessionToken) expect(response.status).toBe(204)
        else expect(await refusalIn(response)).toMatchObject({ status: 400, code: 'InvalidToken' })
      }
      const { sessionToken: _, ...bare } = session
      for (const [credentials, refusal] of [
        [bare, { status: 403, code: 'InvalidAccessKeyId' }],
        [
          { ...session, sessionToken: 'another' },
          { status: 400, code: 'InvalidToken' },
        ],
      ] as const) {
        const other = createClient({ ...server, credentials })
        expect(await refusalOf(other.send(new PutObjectCommand(put)))).toMatchObject(refusal)
        other.destroy()
      }
    }))

  it('expire, and what they signed with them', async () => {
    let offsetMs = 0
    const credentials = [{ ...session, expiresAtMs: Date.now() + 60_000 }]
    await withServer({ credentials, now: () => Date.now() + offsetMs }, async (_, client) => {
      await client.send(new PutObjectCommand(put))
      const url = await getSignedUrl(client, new GetObjectCommand({ Bucket, Key: 'k' }), { expiresIn: 3600 })
      offsetMs = 61_000
      expect(await refusalOf(client.send(new PutObjectCommand(put)))).toMatchObject({
        status: 400,
        code: 'ExpiredToken',
      })
      expect(await refusalIn(await fetch(url))).toMatchObject({ status: 400, code: 'ExpiredToken' })
    })
  })
})

describe('local S3: bodies', () => {
  // The worked example of https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html, published keys included.
  const example = {
    credentials: [
      { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
    ],
    now: () => Date.UTC(2013, 4, 24),
    buckets: ['examplebucket'],
  }
  const chunks: [size: number, signature: string][] = [
    [65_536, 'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648'],
    [1024, '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497'],
    [0, 'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9'],
  ]
  const sendExample = (server: LocalS3, fill: string) =>
    send(server, {
      method: 'PUT',
      path: '/examplebucket/chunkObject.txt',
      headers: {
        host: 's3.amazonaws.com',
        'x-amz-date': '20130524T000000Z',
        'x-amz-storage-class': 'REDUCED_REDUNDANCY',
        authorization:
          'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,' +
          'SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,' +
          'Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9',
        'x-amz-content-sha256': 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
        'content-encoding': 'aws-chunked',
        'x-amz-decoded-content-length': 66_560,
        'content-length': 66_824,
      },
      body: chunks
        .map(
          ([size, signature]) =>
            `${size.toString(16)};chunk-signature=${signature}\r\n${fill.repeat(size)}\r\n`,
        )
        .join(''),
    })

  it("takes the signed chunks of AWS's own example, and no others", () =>
    withServer(example, async (server) => {
      expect((await sendExample(server, 'a')).status).toBe(200)
      expect(await refusalIn(await sendExample(server, 'b'))).toMatchObject({
        status: 403,
        code: 'SignatureDoesNotMatch',
      })
    }))

  const sendTrailer = async (server: LocalS3, body: string, decodedBytes = 5) => {
    const headers = {
      'X-Amz-Content-Sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
      'x-amz-decoded-content-length': decodedBytes,
      'x-amz-trailer': 'x-amz-checksum-crc32',
      'content-encoding': 'gzip,aws-chunked',
      'content-length': Buffer.byteLength(body),
    }
    const path = `/${Bucket}/trailer`
    return send(server, {
      method: 'PUT',
      path,
      body,
      headers: signWithAws4(server, { method: 'PUT', path, headers }),
    })
  }

  it('holds a trailing checksum against the body, and keeps only its real encoding', () =>
    withServer({}, async (server, client) => {
      const body = (checksum: string) => `5\r\nhello\r\n0\r\nx-amz-checksum-crc32:${checksum}\r\n\r\n`
      expect((await sendTrailer(server, body('NhCmhg=='))).status).toBe(200)
      const head = await client.send(
        new HeadObjectCommand({ Bucket, Key: 'trailer', ChecksumMode: 'ENABLED' }),
      )
      expect(head).toMatchObject({ ContentEncoding: 'gzip', ContentLength: 5, ChecksumCRC32: 'NhCmhg==' })
      expect((await refusalIn(await sendTrailer(server, body('AAAAAA==')))).code).toBe('BadDigest')
    }))

  it.each([
    ['no trailer', '5\r\nhello\r\n0\r\n\r\n', 'InvalidRequest'],
    [
      'fewer bytes than announced',
      '4\r\nhell\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n',
      'IncompleteBody',
    ],
    [
      'more bytes than announced',
      '6\r\nhello!\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n',
      'IncompleteBody',
    ],
    ['a chunk cut short', '5\r\nhel', 'IncompleteBody'],
    ['no chunks at all', 'hello', 'IncompleteBody'],
    ['a size that is none', 'zz\r\nhello\r\n0\r\n\r\n', 'InvalidRequest'],
    ['bytes after the end', '5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\nmore', 'InvalidRequest'],
  ])('refuses an aws-chunked body with %s', (_, body, code) =>
    withServer({}, async (server, client) => {
      expect((await refusalIn(await sendTrailer(server, body))).code).toBe(code)
      expect((await refusalOf(client.send(new HeadObjectCommand({ Bucket, Key: 'trailer' })))).status).toBe(
        404,
      )
    }),
  )

  it.each([
    ['ChecksumCRC32', 'NhCmhg=='],
    ['ChecksumCRC32C', 'mnG7TA=='],
    ['ChecksumSHA1', 'qvTGHdzF6KLavt4PO0gs2a6pQ00='],
    ['ChecksumSHA256', 'LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ='],
  ])('takes a right %s and refuses a wrong one', (name, value) =>
    withServer({}, async (_, client) => {
      const put = (Body: string) =>
        client.send(new PutObjectCommand({ Bucket, Key: 'k', Body, [name]: value }))
      expect((await refusalOf(put('hellO'))).code).toBe('BadDigest')
      await put('hello')
    }),
  )

  it('says which checksum it does not know', () =>
    withServer({}, async (_, client) => {
      const put = new PutObjectCommand({ Bucket, Key: 'k', Body: 'x', ChecksumCRC64NVME: 'AAAAAAAAAAA=' })
      expect(await refusalOf(client.send(put))).toMatchObject({
        status: 501,
        code: 'NotImplemented',
        message: expect.stringContaining('crc64nvme'),
      })
    }))

  it("refuses a body that is not the one whose checksum is in a presigned URL, as the SDK's default makes it", () =>
    withServer({}, async (server) => {
      const client = createClient(server, { requestChecksumCalculation: 'WHEN_SUPPORTED' })
      const url = await getSignedUrl(client, new PutObjectCommand({ Bucket, Key: 'k' }))
      client.destroy()
      expect(url).toContain('x-amz-checksum-crc32=AAAAAA')
      expect((await refusalIn(await fetch(url, { method: 'PUT', body: 'x' }))).code).toBe('BadDigest')
    }))
})

describe('local S3: addresses and limits', () => {
  it('takes the bucket from the host', () =>
    withServer({}, async (server, client) => {
      await client.send(new PutObjectCommand({ Bucket, Key: 'a b', Body: 'virtual' }))
      const host = `${Bucket}.localhost:${server.port}`
      const emptyHash = createHash('sha256').digest('hex')
      const headers = signWithAws4(server, {
        host,
        path: '/a%20b',
        headers: { 'X-Amz-Content-Sha256': emptyHash },
      })
      const response = await send(server, { method: 'GET', path: '/a%20b', headers })
      expect([response.status, await response.text()]).toEqual([200, 'virtual'])
    }))

  it('does not pretend a form can be conditional', () =>
    withServer({}, async (_, client) => {
      const { url, fields } = await createPresignedPost(client, { Bucket, Key: 'k' })
      const form = new FormData()
      for (const [name, value] of Object.entries(fields)) form.append(name, value)
      form.append('file', new Blob(['x']))
      const response = await fetch(url, { method: 'POST', body: form, headers: { 'if-none-match': '*' } })
      expect(await refusalIn(response)).toMatchObject({ status: 501, code: 'NotImplemented' })
    }))

  it('refuses a form that is none, or has no file, or ends early', () =>
    withServer({}, async (_, client) => {
      const { url, fields } = await createPresignedPost(client, { Bucket, Key: 'k' })
      const type = (boundary: string) => ({ 'content-type': `multipart/form-data; boundary=${boundary}` })
      const post = async (body: string | FormData, headers = {}) =>
        refusalIn(await fetch(url, { method: 'POST', body, headers }))
      expect(await post('x', { 'content-type': 'text/plain' })).toMatchObject({
        code: 'MalformedPOSTRequest',
      })
      const form = new FormData()
      for (const [name, value] of Object.entries(fields)) form.append(name, value)
      expect(await post(form)).toMatchObject({ code: 'InvalidArgument' })
      const parts = Object.entries(fields).map(
        ([name, value]) => `--b\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`,
      )
      const cut = `${parts.join('')}--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nbyt`
      expect(await post(cut, type('b'))).toMatchObject({ code: 'MalformedPOSTRequest' })
      expect((await refusalOf(client.send(new HeadObjectCommand({ Bucket, Key: 'k' })))).status).toBe(404)
    }))

  it('says what it does not implement', () =>
    withServer({}, async (_, client) => {
      const missing = { status: 501, code: 'NotImplemented' }
      expect(await refusalOf(client.send(new GetBucketAclCommand({ Bucket })))).toMatchObject(missing)
      const copy = new UploadPartCopyCommand({
        Bucket,
        Key: 'k',
        UploadId: 'u',
        PartNumber: 1,
        CopySource: `${Bucket}/k`,
      })
      expect(await refusalOf(client.send(copy))).toMatchObject(missing)
    }))

  it('lets a client send all of a refused body before it reads why', () =>
    withServer({}, async (server) => {
      const socket = connect(server.port, '127.0.0.1')
      await once(socket, 'connect')
      // Nothing is read before everything is sent, as simple clients do.
      socket.pause()
      const sizeBytes = 32 * 2 ** 20
      socket.write(
        `PUT /${Bucket}/k HTTP/1.1\r\nHost: x\r\nContent-Length: ${sizeBytes}\r\nConnection: close\r\n\r\n`,
      )
      await new Promise<void>((resolve, reject) => {
        socket.write(Buffer.alloc(sizeBytes), (error) => (error ? reject(error) : resolve()))
      })
      expect(await text(socket)).toMatch(/^HTTP\/1.1 403 .*<Code>AccessDenied<\/Code>/s)
    }))

  it('counts requests by operation', () =>
    withServer({}, async (server, client) => {
      await client.send(new PutObjectCommand({ Bucket, Key: 'k', Body: 'x' }))
      await refusalOf(client.send(new HeadObjectCommand({ Bucket, Key: 'absent' })))
      expect([
        server.requestCount(),
        server.requestCount('PutObject'),
        server.requestCount('HeadObject'),
      ]).toEqual([2, 1, 1])
    }))

  it('makes a fresh secret each time, and listens on loopback', async () => {
    await using first = await startLocalS3()
    await using second = await startLocalS3()
    expect(first.credentials.secretAccessKey).not.toBe(second.credentials.secretAccessKey)
    expect(new URL(first.url).hostname).toBe('127.0.0.1')
  })

  it('refuses to start without any key pair', async () => {
    await expect(startLocalS3({ credentials: [] })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  })
})
