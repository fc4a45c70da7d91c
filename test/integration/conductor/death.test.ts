import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Conductor } from '../../../src/conductor/conductor.js'
import type { DeathCertificate } from '../../../src/protocol/death-certificate.js'
import { startTestStack, type TestStack } from '../../support/stack.js'

describe('a worker that does not end by itself', () => {
  let stack: TestStack
  let conductor: Conductor
  beforeAll(async () => {
    stack = await startTestStack()
    conductor = stack.conductor()
  })
  afterAll(async () => {
    await conductor?.close()
    await stack?.[Symbol.asyncDispose]()
  })

  const certificateOf = async (taskId: string): Promise<DeathCertificate> =>
    (await (await conductor.results(taskId).latest('death-certificate.json'))?.json()) as DeathCertificate

  it('is warned before its deadline, and its certificate says that its time was up', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'warned',
      command: 'trap "echo saved >work; exit 4" TERM; echo on >&2; while :; do sleep 0.02; done',
      outputs: ['work'],
      timeoutMs: 8_000,
      graceMs: 5_000,
    })
    const warned = new Promise<Date>((told) => worker.once('deadline', told))
    expect(await worker.wait()).toEqual({
      outcome: 'timed_out',
      exitCode: 4,
      signal: null,
      cause: 'deadline',
    })
    expect((await warned).getTime()).toBeGreaterThan(Date.now() - 8_000)
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
