import { describe, expect, it } from 'vitest'
import type { Conductor } from '../../../src/conductor/conductor.js'
import type { Worker } from '../../../src/conductor/worker/worker.js'
import type { WorkerRetry } from '../../../src/conductor/worker/worker-events.js'
import type { DeathCertificate } from '../../../src/protocol/death-certificate.js'
import type { Intent } from '../../../src/protocol/intent.js'
import type { WorkerRecord } from '../../../src/protocol/worker-record.js'
import { S3Intents } from '../../../src/stores/s3/s3-intents.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { startTcpProxy } from '../../support/proxy.js'
import type { TestStack } from '../../support/stack.js'
import { useConductor } from '../../support/use-conductor.js'

describe('a worker that does not end by itself', () => {
  let stack: TestStack
  let conductor: Conductor
  useConductor((aStack, aConductor) => {
    stack = aStack
    conductor = aConductor
  })

  const certificateOf = async (taskId: string): Promise<DeathCertificate> =>
    (await (await conductor.results(taskId).latest('death-certificate.json'))?.json()) as DeathCertificate

  it('is warned before its deadline, and its certificate says that its time was up', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'warned',
      // Nothing that a shell of its own comes to, if that reads its login files.
      command:
        'echo "exit 3" >~/.bash_profile; trap "echo saved >work; exit 4" TERM; echo on >&2; while :; do sleep 0.02; done',
      outputs: ['work'],
      graceMs: 600_000,
    })
    await new Promise((heard) => worker.once('stderr', heard))
    const warned = new Promise<Date>((told) => worker.once('deadline', told))
    await worker.extend(1)
    expect(await worker.wait()).toEqual({
      outcome: 'timed_out',
      exitCode: 4,
      signal: null,
      cause: 'deadline',
    })
    expect(await warned).toBeInstanceOf(Date)
    const receipt = await worker.terminate()
    expect(receipt.cause).toBe('deadline')
    expect(await (await conductor.results('warned').latest('work'))?.text()).toBe('saved\n')
    expect(await certificateOf('warned')).toMatchObject({
      cause: 'deadline',
      outcome: 'timed_out',
      exit: { code: 4, signal: null },
      taken_over: false,
      log_tail: { stderr: expect.stringContaining('on\n') },
    })
    expect(receipt.certificateKey).toMatch(/^warned\/.*-death-certificate\.json$/)
  })

  it('is certified by whoever recovers it, also where it is told to nobody', async () => {
    const first = stack.conductor({ id: 'absent' })
    const worker = await first.spawnWorker({ taskId: 'unseen', command: 'echo last >&2; kill -9 $$' })
    await worker.wait()
    await worker.detach()
    await first.close()
    await using second = stack.conductor({ id: 'absent' })
    const { receipts } = await second.recover()
    expect(receipts).toMatchObject([{ signal: 'SIGKILL', cause: 'signal' }])
    expect(await certificateOf('unseen')).toMatchObject({ taken_over: true, log_tail: { stderr: 'last\n' } })
  })

  it('has its sandbox vanish: the loss, the receipt and the certificate name it', async () => {
    const worker = await conductor.spawnWorker({ taskId: 'vanished', command: 'echo last; sleep 1000' })
    await new Promise((heard) => worker.once('stdout', heard))
    const lost = new Promise((told) => worker.once('lost', told))
    await stack.killSandbox(worker.sandboxId)
    await expect(worker.wait()).rejects.toMatchObject({ code: 'SANDBOX_GONE' })
    await lost
    expect(await worker.terminate()).toMatchObject({ outcome: 'lost', cause: 'sandbox_vanished' })
    expect(await certificateOf('vanished')).toMatchObject({
      cause: 'sandbox_vanished',
      exit: null,
      log_tail: { stdout: 'last\n' },
      evidence: [expect.stringContaining('E2B knows it no more')],
    })
  })

  it('has its sandbox vanish and begins again in another, as often as it may', async () => {
    const { at } = stack
    const worker = await conductor.spawnWorker({
      taskId: 'again',
      files: { '/workspace/in': 'given\n' },
      command:
        'cat in; for n in 1 2 3; do echo $n$RANDOM | persist-result --quiet --name early - >/dev/null; done; echo up; until [ -e go ]; do sleep 0.02; done; echo out >out; exit 3',
      outputs: ['out'],
      timeoutMs: 120_000,
      retries: { lost: 2 },
    })
    const states: string[] = []
    worker.on('state', (state) => states.push(state))
    const retries: WorkerRetry[] = []
    worker.on('retry', (retry) => retries.push(retry))
    let printed = ''
    let heard = (): void => {}
    worker.on('stdout', (text) => {
      printed += text
      if (text.includes('up\n')) heard()
    })
    const up = (): Promise<void> => new Promise((hear) => (heard = hear))
    const began = up()
    const end = worker.wait()
    await began
    for (const attempt of [1, 2]) {
      expect(worker.attempt).toBe(attempt)
      const next = up()
      await stack.killSandbox(worker.sandboxId)
      await next
    }
    await expect(worker.run('true')).rejects.toMatchObject({ code: 'EXISTS' })
    // Once more: the time that it has is the same, and may be changed.
    await worker.extend(60_000)
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    expect(await end).toEqual({ outcome: 'failed', exitCode: 3, signal: null })
    expect(printed).toMatch(/given\nup\ngiven\nup\n$/)
    expect(states).toEqual(['retrying', 'running', 'retrying', 'running', 'exited'])
    expect(retries).toMatchObject([
      { attempt: 2, certificate: { attempt: 1, cause: 'sandbox_vanished' }, receipt: { sealed: true } },
      { attempt: 3, certificate: { attempt: 2, cause: 'sandbox_vanished' }, receipt: { sealed: true } },
    ])
    const receipt = await worker.terminate()
    const names = (keys: readonly string[]): string[] => keys.map((key) => key.slice(22)).sort()
    // Several of one name within a second have keys of seconds to come, which the next sandbox leaves alone.
    const left = ['death-certificate.json', 'early', 'early', 'early']
    expect(receipt.earlier?.map(({ results }) => names(results.map(({ key }) => key)))).toEqual([left, left])
    const manifest = await new S3Manifests(at).read('again')
    expect(manifest).toMatchObject({ outcome: 'failed', exit: { code: 3 }, complete: false })
    const told = manifest?.attempts.map(({ attempt, outcome, keys }) => [attempt, outcome, names(keys)])
    expect(told).toEqual([
      [1, 'lost', left],
      [2, 'lost', left],
      [3, 'failed', [...left.slice(1), 'out']],
    ])
    expect(await worker.results.list({ strict: true })).toHaveLength(12)
  })

  it('is not begun again when it is not wanted any more', async () => {
    const spawn = (taskId: string) =>
      conductor.spawnWorker({ taskId, command: 'sleep 1000', graceMs: 1, retries: { lost: 9 } })
    const deadlineIn = async ({ sandboxId, taskId }: Worker): Promise<string> => {
      const text = await stack.inSandbox(sandboxId, `cat /workspace/.results/.worker/${taskId}/worker.json`)
      return (JSON.parse(text) as WorkerRecord).deadline_at
    }
    const lose = async (worker: Worker): Promise<void> => {
      const retried = new Promise((told) => worker.once('retry', told))
      await stack.killSandbox(worker.sandboxId)
      await retried
    }
    const ended = await spawn('ended-between')
    const end = ended.wait()
    await lose(ended)
    expect(await ended.terminate()).toMatchObject({
      outcome: 'lost',
      cause: 'sandbox_vanished',
      sealed: true,
    })
    await expect(end).rejects.toMatchObject({ code: 'SANDBOX_GONE' })
    // All attempts together have the time of one.
    const late = await spawn('late')
    const endsAt = await deadlineIn(late)
    const again = new Promise<void>((told) =>
      late.on('state', (state) => {
        if (state === 'running') told()
      }),
    )
    await lose(late)
    await again
    expect(await deadlineIn(late)).toBe(endsAt)
    await late.extend(1)
    expect(await late.wait()).toMatchObject({ outcome: 'timed_out', cause: 'deadline' })
    expect((await late.terminate()).earlier).toMatchObject([{ outcome: 'lost' }])
    // Another conductor has begun the task meanwhile.
    const taken = await spawn('taken')
    const intent = { task_id: 'taken', spawn_id: 'theirs', conductor: 'other' } as const
    const created_at = new Date().toISOString()
    await new S3Intents(stack.at).write({ v: 1, ...intent, created_at }, undefined)
    await lose(taken)
    await expect(taken.wait()).rejects.toMatchObject({
      code: 'SANDBOX_GONE',
      message: expect.stringMatching(/by conductor other/),
    })
    await taken.terminate()
  })

  it('is killed while S3 is away: that is written down once S3 is back, and closing waits for it', async () => {
    const { hostname, port } = new URL(stack.s3.url)
    await using proxy = await startTcpProxy({ host: hostname, port: Number(port) }, () => ({ kind: 'pass' }))
    const { bucket, region, credentials } = { ...stack.s3, bucket: stack.at.bucket }
    const endpoint = `http://127.0.0.1:${proxy.port}`
    const cut = stack.conductor({ id: 'cut', s3: { bucket, region, credentials, endpoint } })
    const worker = await cut.spawnWorker({ taskId: 'cut-off', command: 'sleep 1000' })
    proxy.cut()
    expect(await worker.kill()).toMatchObject({ outcome: 'killed', cause: 'stopped', sealed: false })
    await cut.recover()
    setTimeout(() => proxy.restore(), 300)
    await cut.close({ timeoutMs: 60_000 })
    expect((await new S3Manifests(stack.at).read('cut-off'))?.attempts).toMatchObject([
      {
        attempt: 1,
        outcome: 'killed',
        cause: 'stopped',
        keys: [expect.stringContaining('death-certificate')],
      },
    ])
    expect(await certificateOf('cut-off')).toMatchObject({ cause: 'stopped', outcome: 'killed' })
    expect((await new S3Intents(stack.at).read('cut-off'))?.intent).toBeUndefined()
  })

  it('is killed while S3 is away: its own conductor does not take it for lost once S3 is back', async () => {
    const { hostname, port } = new URL(stack.s3.url)
    await using proxy = await startTcpProxy({ host: hostname, port: Number(port) }, () => ({ kind: 'pass' }))
    const { bucket, region, credentials } = { ...stack.s3, bucket: stack.at.bucket }
    const endpoint = `http://127.0.0.1:${proxy.port}`
    await using own = stack.conductor({ id: 'own', s3: { bucket, region, credentials, endpoint } })
    const intents = new S3Intents(stack.at)
    const killUnseen = async (taskId: string): Promise<void> => {
      const worker = await own.spawnWorker({ taskId, command: 'sleep 1000' })
      // Younger ones nobody misses yet.
      const intent = (await intents.read(taskId))?.intent as Intent
      const created_at = new Date(Date.now() - 130_000).toISOString()
      await intents.write({ ...intent, created_at }, undefined)
      proxy.cut()
      expect(await worker.kill()).toMatchObject({ cause: 'stopped', sealed: false })
      proxy.restore()
    }
    const endsOf = async (taskId: string): Promise<unknown[] | undefined> =>
      (await new S3Manifests(stack.at).read(taskId))?.attempts.map(({ attempt, cause }) => [attempt, cause])
    await killUnseen('own-recovered')
    expect(await own.recover()).toEqual({ workers: [], receipts: [], failures: [] })
    expect(await endsOf('own-recovered')).toEqual([[1, 'stopped']])
    expect(await certificateOf('own-recovered')).toMatchObject({ cause: 'stopped' })
    await killUnseen('own-again')
    const again = await own.spawnWorker({ taskId: 'own-again' })
    expect(await endsOf('own-again')).toEqual([[1, 'stopped']])
    await again.terminate()
    expect(await endsOf('own-again')).toEqual([
      [1, 'stopped'],
      [2, null],
    ])
  })

  it('is killed with its supervisor: nobody guesses its exit', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'unseen',
      command: 'kill -KILL $PPID; sleep 1000',
    })
    expect(await worker.wait()).toEqual({
      outcome: 'failed',
      exitCode: null,
      signal: null,
      cause: 'supervisor_killed',
    })
    await worker.terminate()
    expect((await certificateOf('unseen')).last_heartbeat_at).not.toBeNull()
  })

  it('runs what nothing can supervise: that is no exit status of its own', async () => {
    const worker = await conductor.spawnWorker({ taskId: 'unsupervised' })
    const first = await worker.run('rm -rf "$WORKER_RESULTS_LOCAL_DIR/.worker/unsupervised/bin"; exit 4')
    expect(first).toMatchObject({ exitCode: 4, signal: null })
    expect(await worker.run('exit 0')).toMatchObject({
      exitCode: null,
      signal: null,
      supervisorStatus: expect.any(Number),
    })
    const unknown = { outcome: 'failed', exitCode: null, signal: null, cause: 'supervisor_failed' }
    expect(await worker.wait()).toEqual(unknown)
    expect(await worker.kill()).toMatchObject(unknown)
    const { cause, exit, evidence } = await certificateOf('unsupervised')
    expect({ cause, exit }).toEqual({ cause: 'supervisor_failed', exit: null })
    expect(evidence.join()).toMatch(/supervisor ended with status \d/)
  })

  it('writes no certificate when it ended by itself, however badly', async () => {
    const worker = await conductor.spawnWorker({ taskId: 'by-itself', command: 'exit 9' })
    expect(await worker.wait()).toEqual({ outcome: 'failed', exitCode: 9, signal: null })
    expect((await worker.terminate()).results).toEqual([])
  })

  it('whose output says that the disk is full is told of as such', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'full',
      command: 'echo "write: No space left on device" >&2; exit 1',
    })
    expect(await worker.wait()).toMatchObject({ exitCode: 1, cause: 'disk_full' })
    await worker.terminate()
    expect((await certificateOf('full')).evidence.join('\n')).toMatch(/ \d+%/)
  })
})
