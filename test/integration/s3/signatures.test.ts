import { createHash } from 'node:crypto'
import { HeadObjectCommand, PutObjectCommand, type S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import aws4 from 'aws4'
import { expect, it } from 'vitest'
import { createClient } from '../../support/s3/client.js'
import { refusalIn, refusalOf } from '../../support/s3/failures.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { useBucket } from '../../support/s3/use-bucket.js'
import { choose, first } from '../../support/thorough.js'

describeEachS3(
  'S3 signatures in headers',
  (server) => {
    let client: S3Client
    let Bucket: string
    useBucket(server, (opened) => {
      ;({ client, Bucket } = opened)
    })

    const putAs = async (Key: string, config: S3ClientConfig) => {
      const other = createClient(server(), config)
      try {
        return await other.send(new PutObjectCommand({ Bucket, Key, Body: 'x' }))
      } finally {
        other.destroy()
      }
    }
    const isAbsent = async (Key: string) => {
      const refusal = await refusalOf(client.send(new HeadObjectCommand({ Bucket, Key })))
      return refusal.status === 404
    }
    /** Signs with a signer that is not AWS's, and sends what the test makes of it. */
    const sendSigned = (
      Key: string,
      {
        signed,
        sent = signed,
        headers = {},
      }: { signed: string; sent?: string; headers?: Record<string, string> },
    ) => {
      const { host } = new URL(server().url)
      const request = aws4.sign(
        {
          host,
          path: `/${Bucket}/${Key}`,
          method: 'PUT',
          service: 's3',
          region: server().region,
          body: signed,
          headers: { 'X-Amz-Content-Sha256': createHash('sha256').update(signed).digest('hex') },
        },
        server().credentials,
      )
      const { Host: _, 'Content-Length': __, ...sendable } = request.headers as Record<string, string>
      return fetch(`${server().url}/${Bucket}/${Key}`, {
        method: 'PUT',
        body: sent,
        headers: { ...sendable, ...headers },
      })
    }

    it('takes requests of an independent signer', async () => {
      expect((await sendSigned('independent', { signed: 'body' })).status).toBe(200)
    })

    it('refuses a wrong secret and an unknown key', async () => {
      const { accessKeyId } = server().credentials
      const precise = server().quirks.preciseAuthErrors
      const wrong = putAs('wrong-secret', { credentials: { accessKeyId, secretAccessKey: 'wrong' } })
      expect(await refusalOf(wrong)).toMatchObject({
        status: 403,
        code: precise ? 'SignatureDoesNotMatch' : 'AccessDenied',
      })
      const unknown = putAs('unknown', { credentials: { accessKeyId: 'NOBODY', secretAccessKey: 'x' } })
      expect(await refusalOf(unknown)).toMatchObject({
        status: 403,
        code: precise ? 'InvalidAccessKeyId' : expect.stringMatching(/AccessDenied|InvalidAccessKeyId/),
      })
      expect(await isAbsent('wrong-secret')).toBe(true)
    })

    it('refuses a session token nobody issued', async () => {
      const credentials = { ...server().credentials, sessionToken: 'bm9ib2R5' }
      const { status } = await refusalOf(putAs('token', { credentials }))
      expect([400, 403]).toContain(status)
      expect(await isAbsent('token')).toBe(true)
    })

    it.each([-16, 16])('refuses a clock that is %d minutes off', async (minutes) => {
      const refusal = await refusalOf(putAs('skewed', { systemClockOffset: minutes * 60_000 }))
      expect(refusal).toMatchObject({ status: 403, code: 'RequestTimeTooSkewed' })
      expect(await isAbsent('skewed')).toBe(true)
    })

    it.each([-14, 14])('takes a clock that is %d minutes off', async (minutes) => {
      await putAs('nearly', { systemClockOffset: minutes * 60_000 })
    })

    it('refuses another region where it can', async () => {
      const call = putAs('region', { region: 'eu-central-7' })
      if (server().quirks.checksRegion) {
        expect(await refusalOf(call)).toMatchObject({
          status: 400,
          code: 'AuthorizationHeaderMalformed',
          message: expect.stringContaining("expecting 'us-east-1'"),
        })
        expect(await isAbsent('region')).toBe(true)
      } else {
        await call
      }
    })

    it('refuses another body than the one signed', async () => {
      const refusal = await refusalIn(await sendSigned('body', { signed: 'right', sent: 'wrong' }))
      expect(refusal).toMatchObject({ status: 400, code: 'XAmzContentSHA256Mismatch' })
      expect(await isAbsent('body')).toBe(true)
    })

    it('refuses unsigned x-amz headers where it can', async () => {
      const response = await sendSigned('headers', { signed: 'x', headers: { 'x-amz-meta-extra': '1' } })
      if (server().quirks.rejectsUnsignedHeaders) {
        expect(await refusalIn(response)).toMatchObject({ status: 403, code: 'AccessDenied' })
        expect(await isAbsent('headers')).toBe(true)
      } else {
        expect(response.status).toBe(200)
      }
    })

    it('refuses requests that are not signed', async () => {
      const response = await fetch(`${server().url}/${Bucket}/anonymous`, { method: 'PUT', body: 'x' })
      expect(await refusalIn(response)).toMatchObject({ status: 403, code: 'AccessDenied' })
      expect(await isAbsent('anonymous')).toBe(true)
    })
  },
  choose(s3Servers(), first),
)
