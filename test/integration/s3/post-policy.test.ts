import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { GetObjectCommand, ListObjectsV2Command, type S3Client } from '@aws-sdk/client-s3'
import {
  createPresignedPost,
  type PresignedPost,
  type PresignedPostOptions,
} from '@aws-sdk/s3-presigned-post'
import { expect, it } from 'vitest'
import { refusalIn } from '../../support/s3/failures.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { useBucket } from '../../support/s3/use-bucket.js'
import { choose, first } from '../../support/thorough.js'

const run = promisify(execFile)

describeEachS3(
  'S3 POST policies',
  (server) => {
    let client: S3Client
    let Bucket: string
    let grant: PresignedPost

    const sign = (options: Partial<PresignedPostOptions> = {}) =>
      createPresignedPost(client, {
        Bucket,
        // biome-ignore lint/suspicious/noTemplateCurlyInString: S3's own variable
        Key: 'runs/r1/${filename}',
        Conditions: [
          ['content-length-range', 2, 10],
          ['starts-with', '$x-amz-meta-a', ''],
          ['starts-with', '$Content-Type', 'text/'],
        ],
        Expires: 300,
        ...options,
      })

    useBucket(server, async (opened) => {
      ;({ client, Bucket } = opened)
      grant = await sign()
    })

    const post = (
      { url, fields }: PresignedPost,
      changes: Record<string, string | undefined> = {},
      file: { body?: string; name?: string } = {},
    ) => {
      const form = new FormData()
      const all = { ...fields, 'x-amz-meta-a': '1', 'Content-Type': 'text/plain', ...changes }
      for (const [name, value] of Object.entries(all)) if (value !== undefined) form.append(name, value)
      form.append('file', new Blob([file.body ?? 'bytes']), file.name ?? 'f.txt')
      return fetch(url, { method: 'POST', body: form })
    }
    const keys = async () => {
      const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket }))
      return Contents.map(({ Key }) => Key)
    }

    it('stores any number of files below the prefix, with metadata', async () => {
      for (const name of ['one.txt', 'zwei ü.txt']) expect((await post(grant, {}, { name })).status).toBe(204)
      expect((await post(grant, { key: 'runs/r1/deep/three' })).status).toBe(204)
      expect(await keys()).toEqual(['runs/r1/deep/three', 'runs/r1/one.txt', 'runs/r1/zwei ü.txt'])
      const { Body, Metadata, ContentType } = await client.send(
        new GetObjectCommand({ Bucket, Key: 'runs/r1/one.txt' }),
      )
      expect(await Body?.transformToString()).toBe('bytes')
      expect({ Metadata, ContentType }).toEqual({ Metadata: { a: '1' }, ContentType: 'text/plain' })
    })

    it.each<[string, Record<string, string | undefined>, { body?: string }, number, string]>([
      ['a key outside the prefix', { key: 'runs/r2/x' }, {}, 403, 'AccessDenied'],
      ['a field nobody declared', { 'x-amz-meta-b': '1' }, {}, 403, 'AccessDenied'],
      ['a value that does not start as it must', { 'Content-Type': 'image/png' }, {}, 403, 'AccessDenied'],
      [
        'a changed policy',
        { Policy: 'eyJleHBpcmF0aW9uIjoiMjA5OS0wMS0wMVQwMDowMDowMFoiLCJjb25kaXRpb25zIjpbXX0=' },
        {},
        403,
        '',
      ],
      ['a wrong signature', { 'X-Amz-Signature': '0'.repeat(64) }, {}, 403, ''],
      ['a form without a policy', { Policy: undefined }, {}, 403, ''],
      ['a file that is too large', {}, { body: 'x'.repeat(11) }, 400, 'EntityTooLarge'],
      ['a file that is too small', {}, { body: 'x' }, 400, 'EntityTooSmall'],
    ])('refuses %s', async (_, changes, file, status, code) => {
      const before = await keys()
      const refusal = await refusalIn(await post(grant, changes, file))
      expect(refusal.status).toBe(status)
      if (code !== '') expect(refusal.code).toBe(code)
      expect(await keys()).toEqual(before)
    })

    it('refuses a policy past its expiry', async () => {
      // The SDK takes an expiry in the past at its word.
      const expired = await sign({ Expires: -1 })
      expect(await refusalIn(await post(expired))).toMatchObject({ status: 403, code: 'AccessDenied' })
    })

    it('stops a file far over the limit without storing any of it', async () => {
      const before = await keys()
      const refusal = await refusalIn(await post(grant, {}, { body: 'x'.repeat(8 * 2 ** 20), name: 'huge' }))
      expect(refusal).toMatchObject({ status: 400, code: 'EntityTooLarge' })
      expect(await keys()).toEqual(before)
    })

    it('answers 201 with XML when asked to', async () => {
      const asking = await sign({ Fields: { success_action_status: '201' } })
      const response = await post(asking, {}, { name: 'created' })
      expect(response.status).toBe(201)
      expect(await response.text()).toContain('<Key>runs/r1/created</Key>')
    })

    it('takes what curl sends', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'post-policy-'))
      try {
        const path = join(folder, 'by curl.txt')
        await writeFile(path, 'from curl')
        const fields = { ...grant.fields, 'x-amz-meta-a': '1', 'Content-Type': 'text/plain' }
        const form = Object.entries(fields).flatMap(([name, value]) => ['-F', `${name}=${value}`])
        const { stdout } = await run('curl', [
          '-sS',
          '-w',
          '%{http_code}',
          ...form,
          '-F',
          `file=@${path}`,
          grant.url,
        ])
        expect(stdout).toBe('204')
        const { Body } = await client.send(new GetObjectCommand({ Bucket, Key: 'runs/r1/by curl.txt' }))
        expect(await Body?.transformToString()).toBe('from curl')
      } finally {
        await rm(folder, { recursive: true, force: true })
      }
    })
  },
  choose(s3Servers(), first),
)
