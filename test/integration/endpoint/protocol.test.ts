import { randomBytes } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DirectoryFiles } from '../../../src/stores/directory-files.js'
import { SpoolStore } from '../../../src/stores/spool-store.js'
import { readAll, recordFor } from '../../support/records.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'
import { curl } from './curl.js'
import { formOf, post } from './post.js'
import { serveFolder, type TestServer } from './servers.js'

let served: TestServer
let files: TempDir
let url: string
beforeAll(async () => {
  served = await serveFolder({ basePath: '/api/results' })
  files = await makeTempDir()
  url = served.url
  await writeFile(join(files.path, 'test.txt'), 'hello')
  await writeFile(join(files.path, 'big.bin'), randomBytes(5_000_000))
})
afterAll(async () => {
  await served?.[Symbol.asyncDispose]()
  await files?.[Symbol.asyncDispose]()
})

const form = (taskId: string, name: string, file = 'test.txt'): string[] => [
  ...['-F', `file=@${join(files.path, file)}`],
  ...['-F', `key=${taskId}/20260114-120000-${name}`],
  ...['-F', `task_id=${taskId}`],
]
const errorOf = (body: string): { code: string; message: string } => JSON.parse(body).error
const stagedFiles = async (): Promise<string[]> => {
  const incoming = join(served.folder, '.incoming')
  const [own = ''] = await readdir(incoming)
  return (await readdir(join(incoming, own))).filter((name) => name !== 'owner.json')
}

describe('POST', () => {
  it("stores what the guide's own command sends, under a key made of task, time and name", async () => {
    const args = ['-F', `file=@${join(files.path, 'test.txt')}`, '-F', 'key=test', '-F', 'task_id=test']
    const answers = [await curl('-X', 'POST', url, ...args), await curl('-X', 'POST', url, ...args)]
    for (const { status, body, headers } of answers) {
      // A second one in the same second holds the same bytes and is the same result.
      expect([200, 201]).toContain(status)
      const { key } = JSON.parse(body)
      expect(key).toMatch(/^test\/\d{8}-\d{6}-test$/)
      expect(headers.get('location')).toBe(`/api/results/${key}`)
    }
    expect(answers[0]?.status).toBe(201)
    const other = await post(url, formOf({ key: 'test', task_id: 'test' }, 'other bytes'))
    expect(other.status).toBe(201)
    const { results } = JSON.parse((await curl(`${url}?task_id=test`)).body)
    expect(results.map(({ size }: { size: number }) => size)).toContain(11)
  })

  it('keeps a whole result in the layout of the spool, readable by its stores', async () => {
    const metadata = { status: 'done', ü: ['😀'] }
    const { status, body } = await curl(
      url,
      ...form('spool', 'r.txt'),
      '-F',
      `metadata=${JSON.stringify(metadata)}`,
    )
    expect(status).toBe(201)
    const { key, size, sha256 } = JSON.parse(body)
    expect({ key, size }).toEqual({ key: 'spool/20260114-120000-r.txt', size: 5 })
    const store = new SpoolStore('directory', 'directory', new DirectoryFiles(served.folder))
    expect(await store.describe(key)).toMatchObject({ size: 5, sha256, metadata, contentType: 'text/plain' })
    expect((await readAll(await store.open(key))).toString()).toBe('hello')
    const record = JSON.parse(await readFile(join(served.folder, `${key}.meta.json`), 'utf8'))
    expect(record.stored).toEqual([{ tier: 'http', location: url, at: expect.any(String) }])
    expect(await stagedFiles()).toEqual([])
  })

  it('takes fields in any order, the file first as well', async () => {
    const [fileFlag = '', file = '', ...rest] = form('order', 'big.bin', 'big.bin')
    expect((await curl(url, fileFlag, file, ...rest)).status).toBe(201)
    expect((await curl(url, ...rest, fileFlag, file)).status).toBe(200)
  })

  it('answers the same bytes under the same key with 200 and keeps the first record', async () => {
    expect((await curl(url, ...form('twice', 'r'), '-F', 'metadata={"n":1}')).status).toBe(201)
    expect((await curl(url, ...form('twice', 'r'), '-F', 'metadata={"n":2}')).status).toBe(200)
    const { results } = JSON.parse((await curl(`${url}?task_id=twice`)).body)
    expect(results).toHaveLength(1)
    expect(results[0].metadata).toEqual({ n: 1 })
  })

  it('answers other bytes under the same key with 409 and keeps the first ones', async () => {
    expect((await curl(url, ...form('clash', 'r'))).status).toBe(201)
    const { status, body } = await curl(url, ...form('clash', 'r', 'big.bin'))
    expect([status, errorOf(body).code]).toEqual([409, 'conflict'])
    expect((await curl(`${url}/clash/20260114-120000-r`)).body).toBe('hello')
    expect(await stagedFiles()).toEqual([])
  })

  it('lets one of many that race for a key win, and tells each the truth', async () => {
    const fields = { key: 'race/20260114-120000-r', task_id: 'race' }
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => post(url, formOf(fields, `body ${i % 4}`))),
    )
    const statuses = answers.map(({ status }) => status)
    expect(statuses.filter((status) => status === 201)).toHaveLength(1)
    const { body } = await curl(`${url}/${fields.key}`)
    for (const [i, status] of statuses.entries()) {
      expect(status === 409).toBe(`body ${i % 4}` !== body)
    }
  })

  it.each([
    ['no key', ['-F', 'task_id=t'], 422, 'missing_field'],
    ['no task', ['-F', 'key=t/20260114-120000-r'], 422, 'missing_field'],
    ['a task id that is none', ['-F', 'key=r', '-F', 'task_id=../t'], 422, 'invalid_field'],
    ['a key of another task', ['-F', 'key=u/20260114-120000-r', '-F', 'task_id=t'], 422, 'invalid_field'],
    [
      'a key with an impossible day',
      ['-F', 'key=t/20260230-120000-r', '-F', 'task_id=t'],
      422,
      'invalid_field',
    ],
    [
      'a key that leads out',
      ['-F', 'key=t/20260114-120000-../../x', '-F', 'task_id=t'],
      422,
      'invalid_field',
    ],
    ['a name that is a record', ['-F', 'key=x.meta.json', '-F', 'task_id=t'], 422, 'invalid_field'],
    [
      'metadata that is no object',
      ['-F', 'key=r', '-F', 'task_id=t', '-F', 'metadata=[1]'],
      422,
      'invalid_field',
    ],
    [
      'metadata that is no JSON',
      ['-F', 'key=r', '-F', 'task_id=t', '-F', 'metadata={'],
      422,
      'invalid_field',
    ],
    ['a digest that is none', ['-F', 'key=r', '-F', 'task_id=t', '-F', 'sha256=abc'], 422, 'invalid_field'],
    [
      'a digest that lies',
      ['-F', 'key=r', '-F', 'task_id=t', '-F', `sha256=${'0'.repeat(64)}`],
      422,
      'digest_mismatch',
    ],
    ['a field twice', ['-F', 'key=r', '-F', 'key=s', '-F', 'task_id=t'], 400, 'malformed_form'],
    ['two files', ['-F', 'file=x;filename=x', '-F', 'key=r', '-F', 'task_id=t'], 400, 'malformed_form'],
    [
      'a file in another field',
      ['-F', 'other=x;filename=x', '-F', 'key=r', '-F', 'task_id=t'],
      400,
      'malformed_form',
    ],
  ])('refuses a form with %s', async (_what, fields, expected, code) => {
    const { status, body, headers } = await curl(
      url,
      '-F',
      `file=@${join(files.path, 'test.txt')}`,
      ...fields,
    )
    expect([status, errorOf(body).code]).toEqual([expected, code])
    expect(headers.get('content-type')).toMatch(/^application\/json/)
    expect(await stagedFiles()).toEqual([])
  })

  it('refuses what is no form, or a form without a file', async () => {
    const json = await curl(url, '-d', '{}', '-H', 'content-type: application/json')
    expect([json.status, errorOf(json.body).code]).toEqual([415, 'unsupported_media_type'])
    const encoded = await curl(url, '-d', 'key=r&task_id=t')
    expect(encoded.status).toBe(415)
    const empty = await curl(url, '-F', 'key=r', '-F', 'task_id=t')
    expect([empty.status, errorOf(empty.body).code]).toEqual([422, 'missing_field'])
    const nothing = await curl(url, '-X', 'POST', '-H', 'content-type: multipart/form-data; boundary=x')
    expect(nothing.status).toBe(400)
  })

  it('takes an empty file', async () => {
    await writeFile(join(files.path, 'empty'), '')
    expect((await curl(url, ...form('empty', 'r', 'empty'))).status).toBe(201)
    const { status, headers, body } = await curl(`${url}/empty/20260114-120000-r`)
    expect([status, headers.get('content-length'), body]).toEqual([200, '0', ''])
  })
})

describe('GET of a list', () => {
  it('pages through a task in key order and ends', async () => {
    await using paged = await serveFolder({ limits: { pageSize: 3 } })
    const names = ['b', 'a', 'Z', '\uff5e', '\u{1f600}', 'c', 'x'.repeat(255)]
    for (const name of names) {
      const fields = { key: `p/20260114-120000-${name}`, task_id: 'p' }
      expect((await post(paged.url, formOf(fields, name))).status).toBe(201)
    }
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const query = new URLSearchParams({ task_id: 'p', ...(cursor === undefined ? {} : { cursor }) })
      const page = (await (await fetch(`${paged.url}?${query}`)).json()) as {
        results: { name: string }[]
        next?: string
      }
      expect(page.results.length).toBeLessThanOrEqual(3)
      seen.push(...page.results.map(({ name }) => name))
      cursor = page.next
    } while (cursor !== undefined)
    expect(seen).toEqual(['Z', 'a', 'b', 'c', 'x'.repeat(255), '\uff5e', '\u{1f600}'])
  })

  it('ends a page early when its metadata is large', async () => {
    await using paged = await serveFolder()
    const metadata = JSON.stringify({ long: 'x'.repeat(1_900_000) })
    for (let i = 0; i < 4; i++) {
      const fields = { key: `l/20260114-12000${i}-r`, task_id: 'l', metadata }
      expect((await post(paged.url, formOf(fields, 'x'))).status).toBe(201)
    }
    const page = (await (await fetch(`${paged.url}?task_id=l`)).json()) as {
      results: unknown[]
      next?: string
    }
    expect(page.results.length).toBeLessThan(4)
    expect(page.next).toBeDefined()
  })

  it.each([
    ['', 'task_id is missing'],
    ['?task_id=..', 'task_id must start'],
    ['?task_id=a&task_id=b', 'task_id comes twice'],
    ['?task_id=a&cursor=%00', 'cursor is not'],
    [`?task_id=a&cursor=${Buffer.from('b/20260114-120000-r').toString('base64url')}`, 'cursor is not'],
    ['?task_id=a&start_after=b/20260114-120000-r', 'start_after must be'],
  ])('refuses the query %j', async (query, said) => {
    const { status, body } = await curl(`${url}${query}`)
    expect([status, errorOf(body).code]).toEqual([400, 'invalid_query'])
    expect(errorOf(body).message).toContain(said)
  })

  it('shows nothing of a task that left nothing', async () => {
    expect(JSON.parse((await curl(`${url}/?task_id=nobody`)).body)).toEqual({ results: [] })
  })
})

describe('GET of a result', () => {
  const body = Buffer.from('0123456789')
  const record = recordFor({ taskId: 'read', name: 'page.html' }, body)
  const etag = `"${record.sha256}"`
  let at: string
  beforeAll(async () => {
    at = `${url}/${record.key}`
    const fields = { key: record.key, task_id: 'read', metadata: '{"a":1}' }
    expect((await post(url, formOf(fields, body, 'text/html; charset=utf-8'))).status).toBe(201)
  })

  it('gives the bytes in a way that a browser neither runs nor shows', async () => {
    const { status, headers, body: got } = await curl(at)
    expect([status, got]).toEqual([200, '0123456789'])
    expect(Object.fromEntries(headers)).toMatchObject({
      'content-type': 'text/html',
      'content-length': '10',
      'content-disposition': `attachment; filename="page.html"; filename*=UTF-8''page.html`,
      'x-content-type-options': 'nosniff',
      'content-security-policy': expect.stringMatching(/sandbox.*default-src 'none'/),
      'cross-origin-resource-policy': 'same-origin',
      'cache-control': 'private, no-cache',
      'accept-ranges': 'bytes',
      etag,
    })
    expect([...headers.keys()].filter((name) => name.startsWith('access-control'))).toEqual([])
  })

  it.each([
    ['bytes=0-3', 206, '0123', 'bytes 0-3/10'],
    ['bytes=3-', 206, '3456789', 'bytes 3-9/10'],
    ['bytes=-2', 206, '89', 'bytes 8-9/10'],
    ['bytes=-99', 206, '0123456789', 'bytes 0-9/10'],
    ['bytes=5-99', 206, '56789', 'bytes 5-9/10'],
    ['bytes=10-', 416, undefined, 'bytes */10'],
    ['bytes=-0', 416, undefined, 'bytes */10'],
    ['bytes=4-2', 200, '0123456789', undefined],
    ['bytes=0-1,3-4', 200, '0123456789', undefined],
    ['lines=1-2', 200, '0123456789', undefined],
  ])('answers the range %s with %i', async (range, status, part, contentRange) => {
    const answer = await curl(at, '-H', `range: ${range}`)
    expect(answer.status).toBe(status)
    if (part !== undefined) expect(answer.body).toBe(part)
    expect(answer.headers.get('content-range')).toBe(contentRange)
  })

  it('heeds If-Range and If-None-Match', async () => {
    expect((await curl(at, '-H', 'range: bytes=0-3', '-H', `if-range: ${etag}`)).status).toBe(206)
    expect((await curl(at, '-H', 'range: bytes=0-3', '-H', 'if-range: "other"')).status).toBe(200)
    for (const match of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const { status, body: got, headers } = await curl(at, '-H', `if-none-match: ${match}`)
      expect([status, got, headers.get('etag')]).toEqual([304, '', etag])
    }
    expect((await curl(at, '-H', 'if-none-match: "other"')).status).toBe(200)
  })

  it('neither gives nor deletes what is not the one that is meant', async () => {
    const before = 'Thu, 01 Jan 2026 00:00:00 GMT'
    const unmet = ['if-match: "other"', `if-match: W/${etag}`, `if-unmodified-since: ${before}`]
    for (const header of unmet) {
      for (const how of [[], ['-I'], ['-X', 'DELETE']]) {
        expect((await curl(...how, at, '-H', header)).status, header).toBe(412)
      }
    }
    for (const header of ['if-none-match: *', `if-none-match: ${etag}`]) {
      expect((await curl('-X', 'DELETE', at, '-H', header)).status, header).toBe(412)
    }
    for (const headers of [
      [`if-match: "other", ${etag}`, `if-unmodified-since: ${before}`],
      ['if-match: *'],
    ]) {
      const answer = await curl(at, ...headers.flatMap((header) => ['-H', header]), '-H', 'range: bytes=1-2')
      expect([answer.status, answer.body]).toEqual([206, '12'])
    }
    expect((await curl(at, '-H', 'if-unmodified-since: soon')).status).toBe(200)
    expect((await curl('-X', 'DELETE', `${at}x`, '-H', 'if-match: *')).status).toBe(404)
  })

  it('answers HEAD like GET, without the bytes', async () => {
    const { status, headers, body: got } = await curl('-I', at)
    expect([status, headers.get('content-length'), headers.get('etag'), got]).toEqual([200, '10', etag, ''])
    expect((await curl('-I', `${at}x`)).status).toBe(404)
  })

  it('gives the record beside it', async () => {
    const { status, body: got } = await curl(`${at}.meta.json`)
    expect(status).toBe(200)
    expect(JSON.parse(got)).toMatchObject({ key: record.key, sha256: record.sha256, metadata: { a: 1 } })
    expect((await curl(`${at}x.meta.json`)).status).toBe(404)
  })

  it('resumes a download with curl', async () => {
    const path = join(files.path, 'resumed')
    await writeFile(path, '01234')
    expect((await curl('-C', '-', '-o', path, at)).code).toBe(0)
    // curl -i puts the headers of the answer in between; the bytes themselves are appended.
    expect((await readFile(path, 'latin1')).endsWith('56789')).toBe(true)
  })

  it('deletes', async () => {
    const fields = { key: 'gone/20260114-120000-r', task_id: 'gone' }
    expect((await post(url, formOf(fields, 'x'))).status).toBe(201)
    const address = `${url}/${fields.key}`
    expect((await curl('-X', 'DELETE', address)).status).toBe(204)
    for (const args of [[address], ['-X', 'DELETE', address], [`${address}.meta.json`]]) {
      expect((await curl(...args)).status).toBe(404)
    }
    expect(await readdir(join(served.folder, 'gone'))).toEqual([])
    expect((await post(url, formOf(fields, 'other bytes'))).status).toBe(201)
  })
})

it('names the methods that work where one does not', async () => {
  for (const [path, allow] of [
    ['', 'GET, POST'],
    ['/openapi.json', 'GET, HEAD'],
    ['/t/20260114-120000-r', 'GET, HEAD, DELETE'],
    ['/t/20260114-120000-r.meta.json', 'GET, HEAD'],
  ]) {
    const { status, headers } = await curl('-X', 'PUT', `${url}${path}`)
    expect([status, headers.get('allow')]).toEqual([405, allow])
  }
  expect((await curl('-X', 'TRACE', url)).status).toBe(400)
  expect((await curl('-X', 'OPTIONS', url)).status).toBe(405)
})
