import { randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { Sandbox } from 'e2b'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Conductor } from '../../../src/conductor/conductor.js'
import { type Ended, runCli } from '../../support/cli.js'
import { readAll } from '../../support/records.js'
import { startTestStack, type TestStack } from '../../support/stack.js'
import { makeTempDir } from '../../support/temp-dir.js'

let stack: TestStack
beforeAll(async () => {
  stack = await startTestStack()
})
afterAll(async () => {
  await stack?.[Symbol.asyncDispose]()
})

const connection = () => ({
  apiKey: stack.e2b.env.E2B_API_KEY ?? '',
  apiUrl: stack.e2b.url,
  sandboxUrl: stack.e2b.url,
})

/** A task with results that lie nowhere but in its sandbox, and a conductor that has never heard of it. */
async function withTask(
  taskId: string,
  test: (task: { sandboxId: string; stranger: Conductor; state(): Promise<string> }) => Promise<void>,
): Promise<void> {
  const owner = stack.conductor({ s3: null })
  const stranger = stack.conductor({ s3: null })
  const worker = await owner.spawnWorker({
    taskId,
    command: `echo one > one; echo two > two
      head -c 20000000 /dev/urandom > large; for f in one two large; do persist-result --quiet $f; done`,
  })
  const { sandboxId } = worker
  try {
    expect(await worker.wait()).toMatchObject({ exitCode: 0 })
    const state = async (): Promise<string> => (await Sandbox.getInfo(sandboxId, connection())).state
    await test({ sandboxId, stranger, state })
  } finally {
    await stranger.close()
    await worker.kill()
    await owner.close()
  }
}

const names = (results: readonly { name: string }[]): string[] => results.map(({ name }) => name).sort()

describe('results in a sandbox of another process', () => {
  it('are listed and read while it runs, and it runs on', async () => {
    await withTask('running', async ({ stranger, state }) => {
      const results = stranger.results('running')
      const found = await results.list()
      expect(names(found)).toEqual(['large', 'one', 'two'])
      expect(found.unavailable).toEqual([])
      expect(found[0]?.tiers).toEqual(['sandbox'])
      expect(await (await results.latest('one'))?.text()).toBe('one\n')
      const [key] = found.map(({ key }) => key)
      expect(await (await results.get(key as string))?.bytes()).toHaveLength(found[0]?.size ?? -1)
      await stranger.close()
      expect(await state()).toBe('running')
    })
  })

  it('are reported, not woken for, while it is paused and nobody asks for that', async () => {
    await withTask('asleep', async ({ sandboxId, stranger, state }) => {
      const [{ key } = { key: '' }] = await stranger.results('asleep').list()
      await stack.pauseSandbox(sandboxId)
      const results = stranger.results('asleep')
      await expect(results.list()).rejects.toMatchObject({ code: 'SANDBOX_PAUSED' })
      await expect(results.get(key)).rejects.toMatchObject({ code: 'SANDBOX_PAUSED' })
      const nowhere = stranger.results('asleep', { sandboxes: 'none' })
      await expect(nowhere.list()).rejects.toMatchObject({ code: 'INVALID_OPTION' })
      await using withS3 = stack.conductor()
      const found = await withS3.results('asleep').list()
      expect([found.length, found.unavailable.map(({ error }) => error.code)]).toEqual([
        0,
        ['SANDBOX_PAUSED'],
      ])
      await expect(withS3.results('asleep').list({ strict: true })).rejects.toMatchObject({
        code: 'SANDBOX_PAUSED',
      })
      expect(await state()).toBe('paused')
    })
  })

  it('are read from a paused one, which is put back when the last reader is done', async () => {
    await withTask('woken', async ({ sandboxId, stranger, state }) => {
      await stack.pauseSandbox(sandboxId)
      const results = stranger.results('woken', { sandboxes: 'paused' })
      const found = await results.list({ strict: true })
      expect(names(found)).toEqual(['large', 'one', 'two'])
      const readers = found.map((result) => result.stream().getReader())
      const [first] = await Promise.all(readers.map((reader) => reader.read()))
      expect(first?.value?.length).toBeGreaterThan(0)
      expect(await state()).toBe('running')
      await Promise.all(readers.map((reader) => reader.cancel()))
      await stranger.close()
      expect(await state()).toBe('paused')
    })
  })

  it('are read on when it is put to sleep in the middle', async () => {
    await withTask('interrupted', async ({ sandboxId, stranger }) => {
      await stack.pauseSandbox(sandboxId)
      const large = await stranger.results('interrupted', { sandboxes: 'paused' }).latest('large')
      const body = large?.stream() as ReadableStream<Uint8Array>
      const reader = body.getReader()
      await reader.read()
      await stack.pauseSandbox(sandboxId)
      let sizeBytes = 0
      for (let next = await reader.read(); !next.done; next = await reader.read())
        sizeBytes += next.value.length
      // The stream itself has checked the digest.
      expect(sizeBytes).toBeGreaterThan(15_000_000)
    })
  })

  it('are left to whoever has taken the sandbox up meanwhile', async () => {
    await withTask('taken-up', async ({ sandboxId, stranger, state }) => {
      await stack.pauseSandbox(sandboxId)
      const results = stranger.results('taken-up', { sandboxes: 'paused', afterReading: 'kill' })
      await results.list()
      await Sandbox.connect(sandboxId, { ...connection(), timeoutMs: 300_000 })
      await stranger.close()
      expect(await state()).toBe('running')
    })
  })

  it('are not killed with the sandbox unless each was read or lies elsewhere', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await withTask('kept', async ({ sandboxId, stranger, state }) => {
      await stack.pauseSandbox(sandboxId)
      const results = stranger.results('kept', { sandboxes: 'paused', afterReading: 'kill' })
      const found = await results.list()
      for (const result of found.slice(1)) await readAll(result.stream())
      await stranger.close()
      expect(await state()).toBe('paused')
      expect(warned).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'UNDELIVERED' }))
      await found[0]?.bytes()
      await stranger.close()
      await expect(state()).rejects.toThrow(/not found/)
    })
  })

  it('are read by the command, which puts the sandbox back or kills it as it is told', async () => {
    await withTask('commanded', async ({ sandboxId, state }) => {
      const run = (...args: string[]): Promise<Ended> => runCli({ ...stack.e2b.env }, 'results', ...args)
      await stack.pauseSandbox(sandboxId)
      expect(await run('list', 'commanded')).toMatchObject({
        code: 1,
        stdout: '',
        stderr: expect.stringContaining('[SANDBOX_PAUSED]'),
      })
      const woken = ['--sandboxes', 'paused']
      const listed = await run('list', 'commanded', ...woken, '--name', 'one', '--json')
      expect(listed).toMatchObject({ code: 0, stderr: '' })
      expect(await state()).toBe('paused')
      expect(JSON.parse(listed.stdout)).toMatchObject({ tiers: ['sandbox'], size: 4 })
      const killed = [...woken, '--after-reading', 'kill']
      // The others were not read.
      expect((await run('latest', 'commanded', ...killed, '--name', 'two')).stdout).toBe('two\n')
      expect(await state()).toBe('paused')
      await using dir = await makeTempDir()
      expect(await run('download', 'commanded', dir.path, ...killed)).toMatchObject({ code: 0, stderr: '' })
      expect(await readdir(dir.path)).toHaveLength(3)
      await expect(state()).rejects.toThrow(/not found/)
    })
  })

  it('are kept by a command that could not deliver them, which says why and where they are', async () => {
    const bucket = { AWS_ENDPOINT_URL_S3: stack.s3.url, WORKER_RESULTS_S3_BUCKET: 'no-such-bucket' }
    const { accessKeyId, secretAccessKey } = stack.s3.credentials
    const keys = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey }
    const command = ['--task-id', 'undelivered', '--', 'echo one | persist-result --quiet --name one -']
    const ended = await runCli({ ...stack.e2b.env, ...bucket, ...keys }, 'run', ...command)
    const [, kept, why] =
      /^undelivered is not finished. Sandbox (\w+) keeps .*\n(.*)\n$/m.exec(ended.stderr) ?? []
    expect(why).toMatch(/^stu-conductor: .*NoSuchBucket.* \[UNDELIVERED\]$/)
    expect(ended.code).toBe(1)
    await using stranger = stack.conductor({ s3: null })
    const found = stranger.results('undelivered')
    expect(await (await found.latest('one'))?.text()).toBe('one\n')
    expect(await Sandbox.kill(kept ?? '', connection())).toBe(true)
  })

  it('of one that was killed are gone, and that is said', async () => {
    await withTask('gone', async ({ sandboxId, stranger }) => {
      const [first] = await stranger.results('gone').list()
      await stack.killSandbox(sandboxId)
      await expect(first?.bytes()).rejects.toMatchObject({ code: 'NOT_FOUND' })
      expect([...(await stranger.results('gone').list())]).toEqual([])
    })
  })
})

describe('E2B', () => {
  it('is asked nothing for a task that is sealed completely', async () => {
    await using owner = stack.conductor()
    const worker = await owner.spawnWorker({
      taskId: 'sealed',
      command: 'echo x > r; persist-result --quiet r',
    })
    await worker.wait()
    await worker.terminate()
    // Nobody answers there.
    const e2b = { ...connection(), apiUrl: 'http://127.0.0.1:9', sandboxUrl: 'http://127.0.0.1:9' }
    await using stranger = stack.conductor({ e2b })
    const results = stranger.results('sealed', { sandboxes: 'paused' })
    const found = await results.list({ strict: true })
    expect(names(found)).toEqual(['r'])
    expect(await (await results.get(found[0]?.key as string))?.text()).toBe('x\n')
    expect(await results.get('sealed/20260114-120000-never')).toBeUndefined()
    await expect(stranger.results('unsealed').list({ strict: true })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    })
  })

  it('is not asked by those who have no key for it', async () => {
    await using stranger = stack.conductor({ env: {}, e2b: { apiUrl: 'http://127.0.0.1:9' } })
    expect([...(await stranger.results('unsealed').list({ strict: true }))]).toEqual([])
  })

  it('refuses what is no choice', async () => {
    await using stranger = stack.conductor()
    const wrong = { sandboxes: 'all' } as unknown as { sandboxes: 'none' }
    expect(() => stranger.results('t', wrong)).toThrow(/sandboxes/)
    expect(() => stranger.results(randomBytes(200).toString('hex'))).toThrow(/task id/i)
  })
})
