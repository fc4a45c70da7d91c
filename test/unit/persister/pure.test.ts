import { describe, expect, it } from 'vitest'
import { parseAddress } from '../../../src/persister/remote/address.js'
import { makeForm } from '../../../src/persister/remote/form.js'
import { readGrantText } from '../../../src/persister/remote/grant-file.js'
import { bucketAddress, objectAddress } from '../../../src/persister/remote/s3-address.js'
import { s3Error, xmlText } from '../../../src/persister/remote/s3-error.js'
import { contentTypeOf, contentTypeProblem } from '../../../src/persister/source/content-type.js'
import { looksLikePath } from '../../../src/persister/source/path-like.js'
import { parseDurationMs } from '../../../src/persister/supervise/duration.js'
import { s3ObjectKey } from '../../../src/protocol/s3-layout.js'

describe('looksLikePath', () => {
  it.each([
    '/a',
    './a b',
    '../x',
    '~/x',
    'file.txt',
    'out/report',
    'a/b/c/',
    '.',
    'my-data_1.tar.gz',
    'file:///x',
  ])('takes %j for a path', (text) => expect(looksLikePath(text)).toBe(true))
  it.each([
    '',
    'word',
    'two words',
    '{"a":1}',
    '3.14',
    'https://x.org/a.b',
    'a\nb.txt',
    'Done.',
    '[1]',
    'a: b.txt',
  ])('takes %j for content', (text) => expect(looksLikePath(text)).toBe(false))
})

describe('parseDurationMs', () => {
  it.each([
    ['60s', 60_000],
    ['500ms', 500],
    ['1.5m', 90_000],
    ['2h', 7_200_000],
    ['30', 30_000],
  ])('%s', (text, ms) => expect(parseDurationMs(text)).toBe(ms))
  it.each(['', '0', '-1s', '5d', 's', '1e3', '1 s'])('refuses %j', (text) =>
    expect(parseDurationMs(text)).toBeUndefined(),
  )
})

describe('content types', () => {
  it('come from the ending, whatever its case', () => {
    expect(contentTypeOf('a.JSON')).toBe('application/json')
    expect(contentTypeOf('x.tar.gz')).toBe('application/gzip')
    expect(contentTypeOf('none')).toBe('application/octet-stream')
    expect(contentTypeOf('x.constructor', 'text/plain')).toBe('text/plain')
  })
  it('must be fit for a header', () => {
    expect(contentTypeProblem('text/plain; charset=utf-8')).toBeUndefined()
    for (const bad of ['', 'text', 'a/b\r\nx: y', 'a/ü', `a/${'b'.repeat(300)}`]) {
      expect(contentTypeProblem(bad)).toBeTypeOf('string')
    }
  })
})

describe('keys in S3', () => {
  it('leave room for the sidecar where there is one', () => {
    const key = 'task/20260114-123456-name'
    const prefix = 'p'.repeat(1024 - key.length - 1)
    expect(s3ObjectKey(prefix, key)).toHaveLength(1024)
    expect(() => s3ObjectKey(prefix, key, { sidecar: true })).toThrow(/\.meta\.json must be at most 1024/)
    expect(s3ObjectKey(prefix.slice(10), key, { sidecar: true })).toHaveLength(1014)
  })
})

describe('addresses', () => {
  it('use the bucket as host at AWS, and as folder elsewhere or with dots', () => {
    const aws = { bucket: 'my-bucket', region: 'eu-west-1', endpoint: undefined }
    expect(objectAddress(aws, 'r/a b')).toEqual({
      secure: true,
      hostname: 'my-bucket.s3.eu-west-1.amazonaws.com',
      port: undefined,
      path: '/r/a%20b',
    })
    expect(bucketAddress({ ...aws, bucket: 'a.b' })).toMatchObject({
      hostname: 's3.eu-west-1.amazonaws.com',
      path: '/a.b',
    })
    expect(bucketAddress({ ...aws, region: 'cn-north-1' }).hostname).toMatch(/\.amazonaws\.com\.cn$/)
    const own = { ...aws, endpoint: 'http://[::1]:9000/base/' }
    expect(objectAddress(own, "ü'/..")).toEqual({
      secure: false,
      hostname: '::1',
      port: 9000,
      path: '/base/my-bucket/%C3%BC%27/..',
    })
  })
  it('refuse what is no URL without repeating it', () => {
    for (const bad of ['nonsense', 'ftp://x/y']) {
      expect(() => parseAddress('endpoint', bad)).toThrow(/^endpoint (is not a URL|must start with http)/)
    }
  })
})

describe('S3 errors', () => {
  const answer = (status: number, text: string, headers = {}) => ({ status, text, headers })
  it('keep code and words, and know what may be tried again', () => {
    const slow = s3Error(
      answer(503, '<Error><Code>SlowDown</Code><Message>a &lt;b&gt;</Message></Error>'),
      'PUT',
    )
    expect(slow).toMatchObject({ code: 'UNAVAILABLE', retryable: true, message: 'SlowDown: a <b> (PUT)' })
    expect(s3Error(answer(502, '<html>'), 'PUT')).toMatchObject({ code: 'UNAVAILABLE', retryable: true })
    expect(s3Error(answer(501, ''), 'PUT')).toMatchObject({ code: 'UNSUPPORTED', retryable: false })
    const expired = '<Error><Code>AccessDenied</Code><Message>Policy expired.</Message></Error>'
    expect(s3Error(answer(403, expired), 'POST')).toMatchObject({ code: 'EXPIRED', retryable: false })
    const moved = s3Error(answer(301, '', { 'x-amz-bucket-region': 'eu-west-1' }), 'PUT')
    expect(moved.message).toContain('the bucket is in eu-west-1')
  })
  it('find an element only by its whole name', () => {
    expect(xmlText('<A><CodeX>no</CodeX><Code>yes</Code></A>', 'Code')).toBe('yes')
    expect(xmlText('<A/>', 'Code')).toBeUndefined()
  })
})

describe('forms', () => {
  it('quote what would break out of a header', () => {
    const file = { fileName: 'a"\r\nx: y.txt', contentType: 'text/plain', body: [Buffer.from('B')] }
    const form = makeForm({ key: 'k\r\nv' }, file)
    const text = Buffer.concat(form.body as Uint8Array[]).toString()
    expect(text).toContain('filename="a%22%0D%0Ax: y.txt"')
    expect(text).toContain('name="key"\r\n\r\nk\r\nv\r\n')
    expect(text.endsWith(`B\r\n--${form.contentType.replace(/.*boundary=/, '')}--\r\n`)).toBe(true)
  })
})

describe('grants', () => {
  const whole = {
    v: 1,
    task_id: 'w',
    expires_at: '2026-01-01T00:00:00Z',
    s3: {
      bucket: 'b',
      prefix: 'p',
      region: 'r',
      policy: { url: 'http://x', fields: { key: 'k' }, max_bytes: 5 },
    },
    http: { endpoint: 'http://y', token: 't' },
  }
  it('are read whole', () => expect(readGrantText(JSON.stringify(whole))).toMatchObject(whole))
  it('lose only the parts that are malformed', () => {
    const policy = { url: 'http://x', fields: { key: 1 }, max_bytes: 5 }
    const grant = readGrantText(
      JSON.stringify({ ...whole, s3: { ...whole.s3, policy }, http: { token: 't' } }),
    )
    expect(grant).toMatchObject({ task_id: 'w', s3: { bucket: 'b', policy: undefined }, http: undefined })
  })
  it.each([
    '',
    'null',
    '[]',
    '{}',
    JSON.stringify({ ...whole, v: 2 }),
    JSON.stringify({ ...whole, expires_at: 'x' }),
  ])('are refused as %j', (text) => expect(readGrantText(text)).toBeUndefined())
})
