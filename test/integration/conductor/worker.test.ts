import { createHash } from 'node:crypto'
import { DeleteObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { WorkerEvents } from '../../../src/conductor/worker/worker-events.js'
import type { Manifest } from '../../../src/protocol/manifest.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { s3ObjectKey } from '../../../src/protocol/s3-layout.js'
import type { Result } from '../../../src/results/result.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { startTestStack, type TestStack } from '../../support/stack.js'
import { thorough } from '../../support/thorough.js'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

describe('a worker', () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await startTestStack()
  })
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })

  it('runs its command, leaves its results in S3, and is gone', async () => {
    await using conductor = stack.conductor()
    const seen: string[] = []
    const worker = await conductor.spawnWorker({
      taskId: 'simple',
      // The project that it works on is of ES modules; the persister below it is not.
      files: { '/workspace/in.txt': 'hello', '/workspace/package.json': '{"type":"module"}' },
      command:
        'tr a-z A-Z < in.txt > out.txt && persist-result --metadata \'{"n":1}\' out.txt && echo done >&2',
      outputs: ['/workspace/in.txt', '/workspace/never-made'],
    })
    worker.on('result', ({ name }) => seen.push(name))
    expect(await worker.wait()).toEqual({ outcome: 'succeeded', exitCode: 0, signal: null })
    const receipt = await worker.terminate()
    expect(receipt).toMatchObject({
      taskId: 'simple',
      outcome: 'succeeded',
      exitCode: 0,
      missingOutputs: ['/workspace/never-made'],
      failedOutputs: [],
      undelivered: [],
    })
    expect(receipt.results.map(({ tiers, verified }) => ({ tiers, verified }))).toEqual([
      { tiers: ['s3'], verified: true },
      { tiers: ['s3'], verified: true },
    ])
    expect(seen.sort()).toEqual(['in.txt', 'out.txt'])
    expect(worker.state).toBe('terminated')
    expect(await stack.sandboxCount()).toBe(0)

    await using stranger = stack.conductor()
    const results = await stranger.results('simple').list()
    expect(results.map(({ name }) => name).sort()).toEqual(['in.txt', 'out.txt'])
    const out = await stranger.results('simple').latest('out.txt')
    expect(await out?.text()).toBe('HELLO')
    expect(out?.metadata).toEqual({ n: 1 })
    expect(out?.sha256).toBe(sha256('HELLO'))
    expect(out?.tiers).toEqual(['s3'])
    const answer = await fetch((await out?.url({ expiresInSeconds: 60, filename: 'böse".txt' })) as string)
    expect(await answer.text()).toBe('HELLO')
    expect(answer.headers.get('content-disposition')).toMatch(
      /^attachment; filename="b_se_\.txt"; filename\*=UTF-8''/,
    )
  })

  it('says what happens while it happens', async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({ taskId: 'events' })
    const told: [keyof WorkerEvents, unknown][] = []
    const early = new Promise<Result>((resolve) => worker.once('result', resolve))
    for (const event of ['state', 'stdout', 'stderr', 'exit'] as const) {
      worker.on(event, (value: unknown) => told.push([event, value]))
    }
    // The command ends only when this test has heard of the result that it stored.
    const running = worker.run(
      'echo out; echo err >&2; echo x > r; persist-result --quiet r; while [ ! -e go ]; do sleep 0.02; done; exit 3',
    )
    const heard = await early
    expect(heard.name).toBe('r')
    // In S3 or still pending: the list shows it either way.
    const [pending, ...others] = await worker.results.list()
    expect(pending).toMatchObject({ name: 'r', tiers: expect.arrayContaining(['sandbox']) })
    expect(others).toEqual([])
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    expect(await running).toMatchObject({ runId: '1', exitCode: 3, signal: null, stderr: 'err\n' })
    await worker.terminate()
    // It was heard of where it lay first, which is gone.
    expect(await heard.text()).toBe('x\n')
    expect(await (await fetch(await heard.url())).text()).toBe('x\n')
    const text = (event: string): string =>
      told.flatMap(([name, value]) => (name === event ? [value] : [])).join('')
    expect(text('stdout').startsWith('out\n')).toBe(true)
    expect(text('stderr')).toBe('err\n')
    expect(told.filter(([event]) => event === 'exit')).toEqual([
      ['exit', { outcome: 'failed', exitCode: 3, signal: null }],
    ])
    expect(told.filter(([event]) => event === 'state').map(([, state]) => state)).toEqual([
      'running',
      'exited',
      'draining',
      'terminated',
    ])
  })

  it('runs one command after another in the same place', async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({ taskId: 'follow-ups', env: { GREETING: 'hi' } })
    expect((await worker.run('echo $GREETING > f; echo $WORKER_ID')).stdout).toBe('follow-ups\n')
    expect((await worker.run('cat f; echo $MORE', { env: { MORE: 'more' } })).stdout).toBe('hi\nmore\n')
    const running = new Promise((resolve) => worker.once('stdout', resolve))
    const endless = worker.run('echo running; exec sleep 1000')
    await running
    await expect(worker.run('true')).rejects.toMatchObject({ code: 'EXISTS' })
    const receipt = await worker.terminate()
    expect(receipt).toMatchObject({ outcome: 'killed', exitCode: null, signal: 'SIGTERM' })
    expect(await endless).toMatchObject({ runId: '3', signal: 'SIGTERM' })
    await expect(worker.run('true')).rejects.toMatchObject({ code: 'CLOSED' })
    expect(await worker.terminate()).toBe(receipt)
  })

  it('is stopped when its time is up, and still leaves what it has', async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({
      taskId: 'too-long',
      files: { '/workspace/out': 'partial' },
      command: 'sleep 1000',
      outputs: ['out'],
      timeoutMs: 1,
      graceMs: 200,
    })
    expect(await worker.wait()).toMatchObject({ outcome: 'timed_out', exitCode: null })
    // Its time is up for whatever it begins later, too.
    await worker.run('sleep 1000')
    await worker.extend(600_000)
    const up = new Promise((heard) => worker.once('stdout', heard))
    const stubborn = worker.run('trap "" TERM; echo up; while true; do sleep 0.05; done')
    await up
    await worker.extend(1)
    expect(await stubborn).toMatchObject({ signal: 'SIGKILL' })
    expect(await worker.wait()).toMatchObject({ outcome: 'timed_out', signal: 'SIGKILL' })
    const receipt = await worker.terminate()
    expect(receipt.results.map(({ key }) => key.replace(/.*-/, ''))).toEqual(['out', 'certificate.json'])
  })

  it('whose upload is killed half-way still has its result delivered', async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({ taskId: 'killed-upload' })
    // The record lies in the spool before the upload begins, and 50 MB take longer than a look at a folder.
    const { stdout } = await worker.run(`
      head -c 50000000 /dev/urandom > big; sha256sum big | cut -d' ' -f1
      persist-result --quiet big >/dev/null & pid=$!
      until ls .results/killed-upload/*-big.meta.json >/dev/null 2>&1; do sleep 0.005; done
      pkill -KILL -P $pid; kill -KILL $pid; wait $pid; true`)
    const receipt = await worker.terminate()
    expect(receipt.results).toMatchObject([
      { sizeBytes: 50_000_000, sha256: stdout.trim(), tiers: ['s3'], verified: true },
    ])
    const result = await conductor.results('killed-upload').latest()
    const digest = createHash('sha256')
    for await (const chunk of result?.stream() ?? []) digest.update(chunk)
    expect(digest.digest('hex')).toBe(stdout.trim())
  })

  it("'s results survive on a volume when there is no other tier", async () => {
    await using conductor = stack.conductor({ s3: null, volume: 'vol-{taskId}' })
    const worker = await conductor.spawnWorker({
      taskId: 'on-volume',
      command: 'echo kept | persist-result --name r -',
    })
    await worker.wait()
    const receipt = await worker.terminate()
    expect(receipt.results).toMatchObject([{ tiers: ['volume'] }])
    expect(await stack.sandboxCount()).toBe(0)
    await using stranger = stack.conductor({ s3: null, volume: 'vol-{taskId}' })
    expect(await (await stranger.results('on-volume').latest('r'))?.text()).toBe('kept\n')
  })

  it("'s own volume is found by whoever was not told of it", async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({ taskId: 'own-volume', volume: 'disk-{taskId}' })
    await worker.run('echo precious | persist-result --quiet --name p -')
    // Not sealed yet: only what was written down at its beginning tells of the volume.
    await using stranger = stack.conductor()
    const results = stranger.results('own-volume', { sandboxes: 'none' })
    expect((await results.list()).map(({ tiers }) => tiers)).toEqual([['s3', 'volume']])
    await worker.terminate()
    const manifests = new S3Manifests(stack.at)
    const sealed = (await manifests.read('own-volume')) as Manifest
    expect(sealed.attempts).toMatchObject([{ volume: 'disk-own-volume' }])
    // As if S3 had been away all the time.
    const [record] = sealed.results as [ResultRecord]
    const { bucket, prefix, client } = stack.at
    await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: s3ObjectKey(prefix, record.key) }))
    const away = { ...sealed, results: [{ ...record, stored: [] }] }
    // A manifest need not name the volume; what it then cannot lead to is not left unsaid.
    const attempts = sealed.attempts.map(({ volume, ...attempt }) => attempt)
    await manifests.update('own-volume', () => ({ ...away, attempts }))
    expect((await results.list()).unavailable).toMatchObject([{ key: record.key, tier: 'volume' }])
    await manifests.update('own-volume', () => away)
    expect(await (await results.latest('p'))?.text()).toBe('precious\n')
    expect(await (await results.get(record.key))?.text()).toBe('precious\n')
    expect((await stranger.rehome({ tasks: 'own-volume' })).moved).toMatchObject([{ from: ['volume'] }])
    expect((await stranger.prune({ tasks: 'own-volume', olderThanDays: 0 })).failed).toEqual([])
    await using told = stack.conductor({ volume: 'disk-{taskId}' })
    expect(await told.results('own-volume').list()).toHaveLength(0)
  })

  it('is not destroyed while its results lie nowhere else, unless forced', async () => {
    const conductor = stack.conductor({ s3: null })
    const worker = await conductor.spawnWorker({
      taskId: 'undelivered',
      command: 'echo x | persist-result --name r -',
    })
    await worker.wait()
    await expect(worker.terminate()).rejects.toMatchObject({
      code: 'UNDELIVERED',
      message: expect.stringMatching(/undelivered\/.*-r/),
    })
    expect(await stack.sandboxCount()).toBe(1)
    expect(await (await worker.results.latest('r'))?.text()).toBe('x\n')
    await expect(conductor.close()).rejects.toMatchObject({ code: 'UNDELIVERED' })
    const receipt = await worker.kill()
    expect(receipt.undelivered).toMatchObject([{ key: expect.stringMatching(/-r$/) }])
    expect(await stack.sandboxCount()).toBe(0)
    await conductor.close()
  })

  it("'s forged object is refused on read", async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({
      taskId: 'tampered',
      command: 'echo honest | persist-result --name r -',
    })
    await worker.wait()
    await worker.terminate()
    const result = await conductor.results('tampered').latest()
    const { at } = stack
    // Even with a digest and metadata that fit the forgery: the sealed manifest knows better.
    await at.client.send(
      new PutObjectCommand({
        Bucket: at.bucket,
        Key: s3ObjectKey(at.prefix, result?.key ?? ''),
        Body: 'forged\n',
        Metadata: { sha256: sha256('forged\n'), metadata: '{}' },
      }),
    )
    const again = await conductor.results('tampered').get(result?.key ?? '')
    await expect(again?.text()).rejects.toMatchObject({ code: 'INTEGRITY' })
    expect(await again?.text({ verify: false })).toBe('forged\n')
  })

  it("is told when a result of another task is nobody's to deliver", async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({ taskId: 'own' })
    const { exitCode, stdout, stderr } = await worker.run(
      'echo x | persist-result --task-id other --name r -',
    )
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: '' })
    expect(stderr).toMatch(/only results of own are safe/)
    expect((await worker.terminate()).results).toEqual([])
    // With credentials it needs no conductor.
    await using trusting = stack.conductor({ access: 'env' })
    const trusted = await trusting.spawnWorker({ taskId: 'own' })
    expect((await trusted.run('echo x | persist-result --task-id other --name r -')).exitCode).toBe(0)
    await trusted.terminate()
    expect(await (await trusting.results('other').latest('r'))?.text()).toBe('x\n')
  })

  it('that was paused is woken to give what it holds', async () => {
    await using conductor = stack.conductor()
    const command = 'echo x > out; echo on'
    const [ended, running] = await Promise.all([
      conductor.spawnWorker({ taskId: 'paused', command, outputs: ['out'] }),
      conductor.spawnWorker({ taskId: 'asleep-on', command: `${command}; sleep 1000`, outputs: ['out'] }),
    ])
    await Promise.all([ended.wait(), new Promise((heard) => running.once('stdout', heard))])
    await Promise.all(
      [ended, running].map(async (worker) => {
        await stack.pauseSandbox(worker.sandboxId)
        expect((await worker.terminate()).results[0]).toMatchObject({ tiers: ['s3'], verified: true })
      }),
    )
    expect(await stack.sandboxCount()).toBe(0)
  })

  it('that is paused while its command runs goes on where it was', async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({
      taskId: 'asleep',
      // A byte order mark, what is no UTF-8, and, last before the break, two bytes of a character of three.
      command:
        "printf '\\357\\273\\277gr\\374\\337e \\344\\344\\n1\\n2\\n\\342\\202'; touch started; until [ -e go ]; do sleep 0.02; done; printf '\\254\\n3\\n'; exit 5",
    })
    let out = ''
    const heard = new Promise<void>((resolve) => {
      worker.on('stdout', (text) => {
        out += text
        if (out.includes('2\n')) resolve()
      })
    })
    await heard
    await stack.inSandbox(worker.sandboxId, 'until [ -e /workspace/started ]; do sleep 0.02; done')
    await stack.pauseSandbox(worker.sandboxId)
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    expect(await worker.wait()).toEqual({ outcome: 'failed', exitCode: 5, signal: null })
    expect(worker.state).toBe('exited')
    expect(out).toBe('\uFEFFgr\uFFFD\uFFFDe \uFFFD\uFFFD\n1\n2\n€\n3\n')
    await worker.terminate()
  })

  it('whose sandbox vanishes is lost, and what it delivered stays', async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({
      taskId: 'vanished',
      command: 'echo early | persist-result --name early - && touch delivered && sleep 1000',
    })
    const lost = new Promise((resolve) => worker.once('lost', resolve))
    await stack.inSandbox(worker.sandboxId, 'until [ -e /workspace/delivered ]; do sleep 0.02; done')
    await stack.killSandbox(worker.sandboxId)
    await expect(worker.wait()).rejects.toMatchObject({ code: 'SANDBOX_GONE' })
    expect(await lost).toMatchObject({ code: 'SANDBOX_GONE' })
    expect(worker.state).toBe('lost')
    expect(await worker.terminate()).toMatchObject({ outcome: 'lost', exitCode: null })
    expect(await (await conductor.results('vanished').latest('early'))?.text()).toBe('early\n')
  })

  it('with the conductor’s own credentials reaches S3 as the guide says', async () => {
    await using conductor = stack.conductor({ access: 'env' })
    const worker = await conductor.spawnWorker({
      taskId: 'by-env',
      command: 'echo x > r && persist-result r && echo "$WORKER_RESULTS_S3_BUCKET/$WORKER_RESULTS_S3_PREFIX"',
    })
    await worker.wait()
    const receipt = await worker.terminate()
    expect(receipt.results).toMatchObject([{ tiers: ['s3'], verified: true }])
  })
})

describe('a conductor', () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await startTestStack()
  })
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })

  const crowd = thorough ? 50 : 20
  it(`runs ${crowd} workers at once, without a warning of leaking listeners`, async (test) => {
    const warnings: string[] = []
    const listen = ({ name }: Error): void => void warnings.push(name)
    process.on('warning', listen)
    test.onTestFinished(() => void process.off('warning', listen))
    await using conductor = stack.conductor({ maxWorkers: crowd })
    const tasks = Array.from({ length: crowd }, (_, i) => `crowd-${i}`)
    const workers = await Promise.all(
      tasks.map((taskId) =>
        conductor.spawnWorker({
          taskId,
          command: 'echo "I am $WORKER_ID" | persist-result --quiet --name me -',
        }),
      ),
    )
    expect(conductor.workers.size).toBe(crowd)
    expect(await stack.sandboxCount()).toBe(crowd)
    await Promise.all(workers.map((worker) => worker.wait()))
    await Promise.all(workers.map((worker) => worker.terminate()))
    expect(await stack.sandboxCount()).toBe(0)
    const texts = await Promise.all(
      tasks.map(async (task) => (await conductor.results(task).latest('me'))?.text()),
    )
    expect(texts).toEqual(tasks.map((task) => `I am ${task}\n`))
    expect(warnings).not.toContain('MaxListenersExceededWarning')
  })

  it('lets no more workers live than it may', async () => {
    await using conductor = stack.conductor({ maxWorkers: 2 })
    let alive = 0
    let most = 0
    await Promise.all(
      Array.from({ length: 6 }, async (_, i) => {
        const worker = await conductor.spawnWorker({ taskId: `few-${i}` })
        alive += 1
        most = Math.max(most, alive, await stack.sandboxCount())
        await worker.run('true')
        alive -= 1
        await worker.terminate()
      }),
    )
    expect(most).toBe(2)
  })

  it('gives up a worker that was cancelled while it waited or started', async () => {
    await using conductor = stack.conductor({ maxWorkers: 1 })
    const first = await conductor.spawnWorker({ taskId: 'first' })
    const stopping = new AbortController()
    const reason = new Error('not needed')
    const second = conductor.spawnWorker({ taskId: 'second', signal: stopping.signal })
    stopping.abort(reason)
    await expect(second).rejects.toBe(reason)
    const third = conductor.spawnWorker({ taskId: 'second', signal: stopping.signal })
    await expect(third).rejects.toBe(reason)
    const again = conductor.spawnWorker({ taskId: 'second' })
    await first.terminate()
    await (await again).terminate()
    expect(await stack.sandboxCount()).toBe(0)
  })

  it('terminates what is left when it is closed, and takes nothing new', async () => {
    const conductor = stack.conductor()
    await conductor.spawnWorker({
      taskId: 'left',
      command: 'echo x | persist-result --name r - && sleep 1000',
    })
    await conductor.close()
    expect(await stack.sandboxCount()).toBe(0)
    await expect(conductor.spawnWorker({ taskId: 'late' })).rejects.toMatchObject({ code: 'CLOSED' })
  })

  it('has one worker per task', async () => {
    await using conductor = stack.conductor()
    await conductor.spawnWorker({ taskId: 'one' })
    await expect(conductor.spawnWorker({ taskId: 'one' })).rejects.toMatchObject({ code: 'EXISTS' })
  })
})
