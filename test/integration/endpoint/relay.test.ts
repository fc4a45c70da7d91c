import { randomBytes } from 'node:crypto'
import { ListMultipartUploadsCommand, ListPartsCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { type ResultsServer, S3Backend, serveResults } from '../../../src/endpoint/index.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Store } from '../../../src/stores/s3/s3-store.js'
import { s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { readAll, recordFor } from '../../support/records.js'
import { describeEachS3, type S3Server, s3Servers } from '../../support/s3/servers.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'
import { choose, last } from '../../support/thorough.js'
import { postRecord } from './post.js'

const SIZE = 30_000_000

/** An endpoint that relays what is larger than a part, at an S3 that may lie behind something. */
interface Relaying extends AsyncDisposable {
  readonly server: ResultsServer
  readonly at: S3Location
}

async function startRelaying(
  s3: S3Server,
  bucket: string,
  endpoint: string,
  dir: TempDir,
): Promise<Relaying> {
  const { region, credentials } = s3
  const at = openS3Location({ bucket, endpoint, region, credentials })
  const backend = await S3Backend.open(at, { stagingFolder: dir.path, relayFromBytes: 9_000_000 })
  const server = await serveResults({ backend, authenticate: 'none' })
  return {
    server,
    at,
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await backend.close()
      at.close()
    },
  }
}

/** A form whose end is sent only when the test says so. */
function heldBack(
  record: ResultRecord,
  body: Uint8Array,
  more = '',
): { form: ReadableStream<Uint8Array>; letGo(): void } {
  const field = (name: string, value: string): string =>
    `--x\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`
  const head = `${field('key', record.key)}${field('task_id', record.task_id)}${field('sha256', record.sha256)}${field('created_at', record.created_at)}--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n`
  let letGo = (): void => {}
  const free = new Promise<void>((resolve) => {
    letGo = resolve
  })
  const pieces = (async function* () {
    yield Buffer.from(head)
    yield body.subarray(0, body.length - 1)
    await free
    yield Buffer.concat([body.subarray(body.length - 1), Buffer.from(`\r\n${more}--x--\r\n`)])
  })()
  const form = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const next = await pieces.next()
        if (next.done) controller.close()
        else controller.enqueue(next.value)
      },
    },
    { highWaterMark: 0 },
  )
  return { form, letGo }
}

const multipart = { 'content-type': 'multipart/form-data; boundary=x' }

describeEachS3(
  'an upload to an endpoint that keeps results in S3',
  (s3) => {
    let dir: TempDir
    let bucket: string
    let relaying: Relaying
    let store: S3Store
    beforeAll(async () => {
      dir = await makeTempDir()
      bucket = await s3().createBucket()
      relaying = await startRelaying(s3(), bucket, s3().url, dir)
      store = new S3Store(relaying.at)
    })
    afterAll(async () => {
      await relaying?.[Symbol.asyncDispose]()
      await dir?.[Symbol.asyncDispose]()
    })

    const begun = async (): Promise<{ key: string; parts: number }[]> => {
      const { client } = relaying.at
      const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }))
      return Promise.all(
        Uploads.map(async ({ Key = '', UploadId }) => {
          const { Parts = [] } = await client.send(new ListPartsCommand({ Bucket: bucket, Key, UploadId }))
          return { key: Key, parts: Parts.length }
        }),
      )
    }
    const send = (form: ReadableStream<Uint8Array>, signal?: AbortSignal): Promise<Response> =>
      fetch(relaying.server.url, {
        method: 'POST',
        headers: multipart,
        body: form,
        duplex: 'half',
        ...(signal === undefined ? {} : { signal }),
      })

    it('is with S3 for the most part before its last byte has come, and whole after it', async () => {
      const body = randomBytes(SIZE)
      const record = recordFor({ taskId: 'relayed', name: 'r' }, body)
      const { form, letGo } = heldBack(record, body)
      const posted = send(form)
      await vi.waitFor(
        async () => expect(await begun()).toEqual([{ key: `results/${record.key}`, parts: 3 }]),
        20_000,
      )
      expect(await store.describe(record.key)).toBeUndefined()
      letGo()
      expect((await posted).status).toBe(201)
      expect(await begun()).toEqual([])
      expect(await store.describe(record.key)).toMatchObject({
        sha256: record.sha256,
        size: SIZE,
        metadata: {},
      })
      expect((await readAll(await store.open(record.key))).equals(body)).toBe(true)
      // The same bytes once more, and other ones.
      expect((await postRecord(relaying.server.url, record, body)).status).toBe(200)
      const other = randomBytes(SIZE)
      const { sha256 } = recordFor({ taskId: 'relayed', name: 'r' }, other)
      expect((await postRecord(relaying.server.url, { ...record, sha256 }, other)).status).toBe(409)
      expect((await readAll(await store.open(record.key))).equals(body)).toBe(true)
      expect(await begun()).toEqual([])
    })

    it('leaves nothing there when it breaks off', async () => {
      const body = randomBytes(SIZE)
      const record = recordFor({ taskId: 'broken-off', name: 'r' }, body)
      const stopping = new AbortController()
      const posted = send(heldBack(record, body).form, stopping.signal)
      await vi.waitFor(async () => expect((await begun())[0]?.parts).toBe(3), 20_000)
      stopping.abort()
      await expect(posted).rejects.toThrow(/abort/)
      await vi.waitFor(async () => expect(await begun()).toEqual([]), 20_000)
      expect(await store.describe(record.key)).toBeUndefined()
    })

    it('leaves nothing there when its bytes are not those of its digest', async () => {
      const body = randomBytes(SIZE)
      const record = { ...recordFor({ taskId: 'lied', name: 'r' }, body), sha256: '0'.repeat(64) }
      expect((await postRecord(relaying.server.url, record, body)).status).toBe(422)
      expect(await store.describe(record.key)).toBeUndefined()
      expect(await begun()).toEqual([])
    })

    it('is described by what comes after the file as well', async () => {
      const body = randomBytes(SIZE)
      const record = recordFor({ taskId: 'late-field', name: 'r' }, body)
      const late = '--x\r\ncontent-disposition: form-data; name="metadata"\r\n\r\n{"late":true}\r\n'
      const { form, letGo } = heldBack(record, body, late)
      letGo()
      expect((await send(form)).status).toBe(201)
      expect((await store.describe(record.key))?.metadata).toEqual({ late: true })
      expect((await readAll(await store.open(record.key))).equals(body)).toBe(true)
      expect(await begun()).toEqual([])
    })

    it('is put in one go where S3 takes no parts', async () => {
      const refusing = (url = ''): boolean => /partNumber=2\b/.test(url)
      await using proxy = await startFaultProxy(s3().url, ({ url }) =>
        refusing(url) ? s3Fault(403, 'AccessDenied') : undefined,
      )
      await using other = await startRelaying(s3(), bucket, proxy.url, dir)
      const body = randomBytes(SIZE)
      const record = recordFor({ taskId: 'no-parts', name: 'r' }, body)
      expect((await postRecord(other.server.url, record, body)).status).toBe(201)
      expect(proxy.requests.some((line) => refusing(line))).toBe(true)
      expect((await readAll(await store.open(record.key))).equals(body)).toBe(true)
      expect(await begun()).toEqual([])
    })
  },
  choose(s3Servers(), last),
)
