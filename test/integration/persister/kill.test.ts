import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { ListMultipartUploadsCommand } from '@aws-sdk/client-s3'
import { describe, expect, it } from 'vitest'
import { faultedImplementations } from '../../conformance/persister/implementations.js'
import { startFaultProxy } from '../../support/persister/fault-proxy.js'
import { finish, killGroup, start } from '../../support/persister/program.js'
import { seededRandom } from '../../support/persister/random.js'
import { openS3Place } from '../../support/persister/targets.js'
import { makeWorker, type Worker } from '../../support/persister/worker.js'
import { createClient } from '../../support/s3/client.js'
import { startLocalServer } from '../../support/s3/servers.js'

/** Kills per implementation; `npm run faults` asks for many more than a quick run does. */
const ROUNDS = Number(process.env.FAULT_ROUNDS ?? 5)
const SEED = Number(process.env.FAULT_SEED ?? 20_260_114)
/** Big enough to go up in parts, as it does where no request of its size gets through. */
const BIG_BYTES = 66 << 20
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

type Shape = 'small' | 'medium' | 'stream' | 'directory' | 'big'

function shapeOf(dice: number): Shape {
  if (dice < 0.3) return 'small'
  if (dice < 0.5) return 'medium'
  if (dice < 0.65) return 'stream'
  return dice < 0.85 ? 'directory' : 'big'
}

/** Content that no other round has, so that a result stored twice is seen. */
async function writeContent(worker: Worker, shape: Shape, round: number): Promise<string> {
  const path = join(worker.folder, `round-${round}`)
  if (shape === 'directory') {
    await mkdir(path)
    for (let i = 0; i < 40; i++)
      await writeFile(join(path, `${i}.txt`), `round ${round}, file ${i}\n`.repeat(50))
    return path
  }
  const sizeBytes = { small: 1000, medium: 3_000_000, stream: 400_000, big: BIG_BYTES }[shape]
  const line = Buffer.from(`content of round ${round}\n`)
  await writeFile(path, Buffer.alloc(sizeBytes, line))
  return path
}

describe.each(faultedImplementations)('SIGKILL at random moments, $name', ({ argv }) => {
  it(
    `loses nothing acknowledged and stores nothing twice or in part (${ROUNDS} kills, seed ${SEED})`,
    async (test) => {
      const random = seededRandom(SEED)
      const place = await openS3Place(await startLocalServer())
      test.onTestFinished(() => place[Symbol.asyncDispose]())
      const proxy = await startFaultProxy(place.server.url, ({ headers }) =>
        Number(headers['content-length']) >= BIG_BYTES ? { kind: 'reset', afterBytes: 1 << 20 } : undefined,
      )
      test.onTestFinished(() => proxy[Symbol.asyncDispose]())
      const worker = await makeWorker(test, argv, place.withKeys, { AWS_ENDPOINT_URL_S3: proxy.url })
      const longestMs: Record<Shape, number> = {
        small: 400,
        medium: 500,
        stream: 400,
        directory: 500,
        big: 2500,
      }
      const acknowledged: string[] = []
      for (let round = 0; round < ROUNDS; round++) {
        const dice = random()
        const shape: Shape = shapeOf(dice)
        const path = await writeContent(worker, shape, round)
        const words = shape === 'stream' ? ['-', '-n', `round-${round}`] : [path]
        const child = start([...argv, '-q', ...words], { env: worker.env, cwd: worker.folder, group: true })
        if (shape === 'stream' && child.stdin !== null) {
          // It may be gone before it has read all.
          pipeline(createReadStream(path), child.stdin).catch(() => {})
        }
        const killing = setTimeout(() => killGroup(child), random() * longestMs[shape])
        const startedMs = performance.now()
        const { stdout, status } = await finish(child)
        clearTimeout(killing)
        // Runs that were through before their kill tell how long this machine takes, and later kills hit the whole of it.
        if (status === 0) longestMs[shape] = (performance.now() - startedMs) * 1.05
        if (stdout.endsWith('\n')) acknowledged.push(stdout.trimEnd())
        await rm(path, { recursive: true })
      }
      const flushed = await worker.persist(['--flush', '-q'])
      expect(flushed).toMatchObject({ status: 0, stderr: '' })

      const records = await worker.records()
      expect(records.filter(({ stored }) => stored.length === 0)).toEqual([])
      const keys = await place.withKeys.keys(worker.taskId)
      expect(keys).toEqual(records.map(({ key }) => key))
      expect(keys).toEqual(expect.arrayContaining(acknowledged))
      expect(new Set(records.map(({ name }) => name)).size).toBe(records.length)
      for (const record of records) {
        const remote = await place.withKeys.read(record.key)
        expect(sha256(remote?.bytes ?? Buffer.alloc(0))).toBe(record.sha256)
        expect(remote?.sha256).toBe(record.sha256)
      }
      const client = createClient(place.server)
      test.onTestFinished(() => client.destroy())
      const open = await client.send(new ListMultipartUploadsCommand({ Bucket: place.bucket }))
      // At most one for each kill that hit between the store's answer and the note of it.
      expect((open.Uploads ?? []).length).toBeLessThanOrEqual(Math.ceil(ROUNDS / 10))
    },
    30_000 + ROUNDS * 3_000,
  )
})
