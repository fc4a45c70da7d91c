import { createHash, randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { HttpStore } from '../../../src/stores/http/http-store.js'
import { collect, readAll, recordFor } from '../../support/records.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'
import { choose } from '../../support/thorough.js'
import { postRecord } from './post.js'
import { buildServer, startServer } from './server-process.js'

const UPLOADS = 200

let dir: TempDir
let program: string
beforeAll(async () => {
  dir = await makeTempDir()
  program = await buildServer(dir.path)
})
afterAll(() => dir?.[Symbol.asyncDispose]())

// Killed at the first answer, with all others under way, and when most have been answered.
it.each(choose([1, 120], (killAt) => killAt > 1))(
  'has every acknowledged result, whole, after a SIGKILL at answer %i of 200 uploads at once',
  async (killAt) => {
    await using folder = await makeTempDir()
    const uploads = Array.from({ length: UPLOADS }, (_, i) => {
      const body = randomBytes(20_000 + i * 500)
      return { body, record: recordFor({ taskId: `t${i % 5}`, name: `r-${i}`, metadata: { i } }, body) }
    })
    const acknowledged = new Set<string>()
    {
      await using server = await startServer(program, folder.path)
      let killed: Promise<void> | undefined
      await Promise.all(
        uploads.map(async ({ record, body }) => {
          try {
            const response = await postRecord(server.url, record, body)
            if (response.status === 201) acknowledged.add(record.key)
          } catch (error) {
            // Cut off by the kill; before it, every upload must go through.
            if (killed === undefined) throw error
          }
          if (acknowledged.size >= killAt) killed ??= server.kill()
        }),
      )
      await killed
    }
    expect(acknowledged.size).toBeGreaterThanOrEqual(killAt)

    await using server = await startServer(program, folder.path)
    const store = new HttpStore({ endpoint: server.url })
    const listed = new Set<string>()
    for (const taskId of new Set(uploads.map(({ record }) => record.task_id))) {
      for (const { key } of await collect(store.list(taskId))) listed.add(key)
    }
    for (const { record, body } of uploads) {
      if (acknowledged.has(record.key)) expect(listed).toContain(record.key)
      // Also what was stored without its answer getting through is whole.
      if (!listed.has(record.key)) continue
      expect((await readAll(await store.open(record.key))).equals(body)).toBe(true)
      expect((await store.describe(record.key))?.metadata).toEqual(record.metadata)
    }
    // Every upload can be repeated, and is then stored, whatever the crash left of it.
    for (const { record, body } of uploads) {
      expect([200, 201]).toContain((await postRecord(server.url, record, body)).status)
    }
    const incoming = join(folder.path, '.incoming')
    const [own = '', ...others] = await readdir(incoming)
    expect([await readdir(join(incoming, own)), others]).toEqual([['owner.json'], []])
  },
  60_000,
)

it('takes and gives 256 MB in constant memory', async () => {
  await using folder = await makeTempDir()
  await using server = await startServer(program, folder.path)
  const block = randomBytes(1 << 20)
  const blocks = 256
  const hash = createHash('sha256')
  for (let i = 0; i < blocks; i++) hash.update(block)
  const sha256 = hash.digest('hex')
  const start = Buffer.from(
    `--x\r\nContent-Disposition: form-data; name="key"\r\n\r\nbig/20260114-120000-r\r\n--x\r\nContent-Disposition: form-data; name="task_id"\r\n\r\nbig\r\n--x\r\nContent-Disposition: form-data; name="sha256"\r\n\r\n${sha256}\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="r"\r\n\r\n`,
  )
  let sent = -1
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (sent === -1) controller.enqueue(start)
        else if (sent < blocks) controller.enqueue(Buffer.from(block))
        else {
          controller.enqueue(Buffer.from('\r\n--x--\r\n'))
          controller.close()
        }
        sent++
      },
    },
    { highWaterMark: 0 },
  )
  const headers = { 'content-type': 'multipart/form-data; boundary=x' }
  const init: RequestInit = { method: 'POST', headers, body, duplex: 'half', redirect: 'error' }
  const posted = await fetch(server.url, init)
  expect([posted.status, await posted.json()]).toMatchObject([201, { size: blocks << 20, sha256 }])
  const got = createHash('sha256')
  const store = new HttpStore({ endpoint: server.url })
  for await (const chunk of await store.open('big/20260114-120000-r')) got.update(chunk)
  expect(got.digest('hex')).toBe(sha256)
  const peakKb = Number(/VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${server.pid}/status`, 'utf8'))?.[1])
  console.log(`peak memory of the server over 256 MB up and down: ${Math.round(peakKb / 1024)} MB`)
  expect(peakKb).toBeLessThan(250 * 1024)
})
