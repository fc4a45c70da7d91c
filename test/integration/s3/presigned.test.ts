import { createHash } from 'node:crypto'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  HeadObjectCommand,
  PutObjectCommand,
  type PutObjectCommandInput,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { describe, expect, it } from 'vitest'
import { createClient } from '../../support/s3/client.js'
import { refusalIn, refusalOf } from '../../support/s3/failures.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { useBucket } from '../../support/s3/use-bucket.js'
import { choose, first } from '../../support/thorough.js'

const fiveMebibytes = 5 * 2 ** 20

describeEachS3(
  'S3 presigned URLs',
  (server) => {
    let client: S3Client
    let Bucket: string
    useBucket(server, (opened) => {
      ;({ client, Bucket } = opened)
    })

    type Signing = NonNullable<Parameters<typeof getSignedUrl>[2]>
    const signPut = (Key: string, input: Partial<PutObjectCommandInput> = {}, signing: Signing = {}) =>
      getSignedUrl(client, new PutObjectCommand({ Bucket, Key, ...input }), signing)
    const signGet = (Key: string, input: object = {}, signing: Signing = {}) =>
      getSignedUrl(client, new GetObjectCommand({ Bucket, Key, ...input }), signing)
    const put = (url: string, body: string | Uint8Array, headers: Record<string, string> = {}) =>
      fetch(url, { method: 'PUT', body, headers })
    const exists = async (Key: string) => {
      try {
        await client.send(new HeadObjectCommand({ Bucket, Key }))
        return true
      } catch (error) {
        if ((error as Error).name === 'NotFound') return false
        throw error
      }
    }

    it('puts and gets without credentials, also under odd keys', async () => {
      for (const key of ['a/b', "ünï 日本 😀+(x)'&=?#%"]) {
        expect((await put(await signPut(key), 'bytes')).status).toBe(200)
        const response = await fetch(await signGet(key))
        expect([response.status, await response.text()]).toEqual([200, 'bytes'])
      }
    })

    it('overrides response headers', async () => {
      await put(await signPut('override'), 'x')
      const url = await signGet('override', {
        ResponseContentDisposition: 'attachment; filename="a b.txt"',
        ResponseContentType: 'text/plain',
      })
      const response = await fetch(url)
      expect(response.headers.get('content-disposition')).toBe('attachment; filename="a b.txt"')
      expect(response.headers.get('content-type')).toBe('text/plain')
      expect((await fetch(url.replace('text%2Fplain', 'text%2Fhtml'))).status).toBe(403)
    })

    it('serves ranges', async () => {
      await put(await signPut('range'), '0123456789')
      const response = await fetch(await signGet('range'), { headers: { range: 'bytes=3-5' } })
      expect([response.status, await response.text()]).toEqual([206, '345'])
    })

    it.each([
      ['another key', (url: URL) => url.pathname.replace('victim', 'other'), 'PUT', {}],
      ['another method', (url: URL) => url.pathname, 'GET', {}],
      ['a changed signed header', (url: URL) => url.pathname, 'PUT', { 'x-amz-meta-a': '2' }],
      ['a missing signed header', (url: URL) => url.pathname, 'PUT', undefined],
    ])('refuses %s', async (_, path, method, headers) => {
      const url = new URL(
        await signPut('victim', { Metadata: { a: '1' } }, { unhoistableHeaders: new Set(['x-amz-meta-a']) }),
      )
      url.pathname = path(url)
      const response = await fetch(url, {
        method,
        headers: headers === undefined ? {} : { 'x-amz-meta-a': '1', ...headers },
        ...(method === 'PUT' ? { body: 'x' } : {}),
      })
      const code = server().quirks.preciseAuthErrors ? 'SignatureDoesNotMatch' : expect.any(String)
      expect(await refusalIn(response)).toMatchObject({ status: 403, code })
      expect(await exists('victim')).toBe(false)
    })

    it('refuses another length than the one signed', async () => {
      const url = await signPut('length', { ContentLength: 5 })
      expect((await put(url, '123456')).status).toBe(403)
      expect(await exists('length')).toBe(false)
      expect((await put(url, '12345')).status).toBe(200)
    })

    it('obeys a signed If-None-Match', async () => {
      const url = await signPut('once', { IfNoneMatch: '*' })
      const headers = { 'if-none-match': '*' }
      expect((await put(url, 'first', headers)).status).toBe(200)
      expect(await refusalIn(await put(url, 'second', headers))).toMatchObject({
        status: 412,
        code: 'PreconditionFailed',
      })
      expect((await put(url, 'third')).status).toBe(403)
      expect(await (await fetch(await signGet('once'))).text()).toBe('first')
    })

    it('stores signed metadata', async () => {
      const unhoistableHeaders = new Set(['x-amz-meta-task-id'])
      const url = await signPut('metadata', { Metadata: { 'task-id': 'w' } }, { unhoistableHeaders })
      expect((await put(url, 'x', { 'x-amz-meta-task-id': 'w' })).status).toBe(200)
      const { Metadata } = await client.send(new HeadObjectCommand({ Bucket, Key: 'metadata' }))
      expect(Metadata).toEqual({ 'task-id': 'w' })
    })

    it('holds a signed checksum against the body where it can', async () => {
      const ChecksumSHA256 = createHash('sha256').update('right').digest('base64')
      const unhoistableHeaders = new Set(['x-amz-checksum-sha256'])
      const url = await signPut('checksum', { ChecksumSHA256 }, { unhoistableHeaders })
      const headers = { 'x-amz-checksum-sha256': ChecksumSHA256 }
      const wrong = await put(url, 'wrong', headers)
      if (server().quirks.presignedPayloadChecksum) {
        expect(await refusalIn(wrong)).toMatchObject({ status: 400, code: 'BadDigest' })
        expect(await exists('checksum')).toBe(false)
      } else {
        expect(wrong.status).toBe(200)
      }
      expect((await put(url, 'right', headers)).status).toBe(200)
    })

    it('holds a signed Content-MD5 against the body', async () => {
      const ContentMD5 = createHash('md5').update('right').digest('base64')
      const url = await signPut('md5', { ContentMD5 })
      const wrong = await refusalIn(await put(url, 'wrong', { 'content-md5': ContentMD5 }))
      expect(wrong).toMatchObject({ status: 400, code: 'BadDigest' })
      expect(await exists('md5')).toBe(false)
      expect((await put(url, 'right', { 'content-md5': ContentMD5 })).status).toBe(200)
    })

    it('refuses unsigned x-amz headers where it can', async () => {
      const response = await put(await signPut('unsigned'), 'x', { 'x-amz-meta-extra': '1' })
      if (server().quirks.rejectsUnsignedHeaders) {
        expect(await refusalIn(response)).toMatchObject({
          status: 403,
          code: 'AccessDenied',
          message: expect.stringContaining('not signed'),
        })
      } else {
        expect(response.status).toBe(200)
      }
    })

    describe('time', () => {
      it('refuses a URL past its expiry', async () => {
        const signingDate = new Date(Date.now() - 120_000)
        const url = await signPut('expired', {}, { expiresIn: 60, signingDate })
        expect(await refusalIn(await put(url, 'x'))).toMatchObject({ status: 403, code: 'AccessDenied' })
        expect(await exists('expired')).toBe(false)
      })

      it('refuses a stretched expiry', async () => {
        const url = await signPut('stretched', {}, { expiresIn: 60 })
        expect((await put(url.replace('X-Amz-Expires=60', 'X-Amz-Expires=600'), 'x')).status).toBe(403)
      })

      it('refuses more than a week', async () => {
        const url = await signPut('week', {}, { expiresIn: 604_800 })
        const { status } = await refusalIn(await put(url.replace('604800', '604801'), 'x'))
        expect([400, 403]).toContain(status)
      })

      it('refuses a URL of the future where it can', async () => {
        const url = await signPut('future', {}, { signingDate: new Date(Date.now() + 3_600_000) })
        expect((await put(url, 'x')).status).toBe(server().quirks.rejectsFutureDates ? 403 : 200)
      })
    })

    describe('uploads in parts', () => {
      const begin = async (Key: string) => {
        const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key }))
        return { Bucket, Key, UploadId }
      }
      const putPart = async (upload: object, PartNumber: number, body: string | Uint8Array) => {
        const url = await getSignedUrl(
          client,
          new UploadPartCommand({
            ...(upload as { Bucket: string; Key: string; UploadId: string }),
            PartNumber,
          }),
        )
        return put(url, body)
      }
      const complete = async (
        upload: Awaited<ReturnType<typeof begin>>,
        etags: (string | null)[],
        headers = {},
      ) => {
        const url = await getSignedUrl(
          client,
          new CompleteMultipartUploadCommand({
            ...upload,
            ...('if-none-match' in headers ? { IfNoneMatch: '*' } : {}),
          }),
        )
        const parts = etags.map(
          (etag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${etag}</ETag></Part>`,
        )
        const body = `<CompleteMultipartUpload>${parts.join('')}</CompleteMultipartUpload>`
        return fetch(url, {
          method: 'POST',
          body,
          headers: { 'content-type': 'application/xml', ...headers },
        })
      }

      it('uploads, completes and reads back', async () => {
        const upload = await begin('parts/ü')
        const first = await putPart(upload, 1, new Uint8Array(fiveMebibytes).fill(1))
        const second = await putPart(upload, 2, 'tail')
        expect(await exists('parts/ü')).toBe(false)
        const response = await complete(upload, [first.headers.get('etag'), second.headers.get('etag')])
        const text = await response.text()
        expect([response.status, text]).toEqual([
          200,
          expect.stringContaining('<CompleteMultipartUploadResult'),
        ])
        if (server().quirks.etagOnComplete) expect(text).toMatch(/<ETag>(&quot;|")[0-9a-f]{32}-2/)
        const stored = Buffer.from(await (await fetch(await signGet('parts/ü'))).arrayBuffer())
        expect(stored.equals(Buffer.concat([Buffer.alloc(fiveMebibytes, 1), Buffer.from('tail')]))).toBe(true)
      })

      it('refuses a wrong ETag, a small part before the last, and parts after the end', async () => {
        const upload = await begin('parts/refused')
        const etags = [(await putPart(upload, 1, 'one')).headers.get('etag')]
        expect(await refusalIn(await complete(upload, ['"00000000000000000000000000000000"']))).toMatchObject(
          {
            status: 400,
            code: 'InvalidPart',
          },
        )
        etags.push((await putPart(upload, 2, 'two')).headers.get('etag'))
        expect(await refusalIn(await complete(upload, etags))).toMatchObject({
          status: 400,
          code: 'EntityTooSmall',
        })
        const abortUrl = await getSignedUrl(client, new AbortMultipartUploadCommand(upload))
        expect((await fetch(abortUrl, { method: 'DELETE' })).status).toBe(204)
        expect(await refusalIn(await putPart(upload, 3, 'late'))).toMatchObject({
          status: 404,
          code: 'NoSuchUpload',
        })
        expect(await exists('parts/refused')).toBe(false)
      })

      it('refuses another part number than the one signed', async () => {
        const upload = await begin('parts/number')
        const url = await getSignedUrl(client, new UploadPartCommand({ ...upload, PartNumber: 1 }))
        expect((await put(url.replace('partNumber=1', 'partNumber=2'), 'x')).status).toBe(403)
      })

      it('does not replace an object with If-None-Match, where it can', async () => {
        await put(await signPut('parts/once'), 'first')
        const upload = await begin('parts/once')
        const etag = (await putPart(upload, 1, 'second')).headers.get('etag')
        const response = await complete(upload, [etag], { 'if-none-match': '*' })
        await response.text()
        const kept = await (await fetch(await signGet('parts/once'))).text()
        const obeys = server().quirks.ifNoneMatchOnComplete
        expect([response.status, kept]).toEqual(obeys ? [412, 'first'] : [200, 'second'])
      })
    })

    it('refuses a URL signed with a wrong secret', async () => {
      const { accessKeyId } = server().credentials
      const liar = createClient({ ...server(), credentials: { accessKeyId, secretAccessKey: 'wrong' } })
      try {
        const url = await getSignedUrl(liar, new PutObjectCommand({ Bucket, Key: 'liar' }))
        expect((await put(url, 'x')).status).toBe(403)
        expect((await refusalOf(client.send(new HeadObjectCommand({ Bucket, Key: 'liar' })))).status).toBe(
          404,
        )
      } finally {
        liar.destroy()
      }
    })
  },
  choose(s3Servers(), first),
)
