import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Fence } from '../../../src/conductor/end/fence.js'
import type { Receipt } from '../../../src/conductor/end/receipt.js'
import { sealTask } from '../../../src/conductor/end/seal.js'
import { trustedRecord } from '../../../src/conductor/recovery/trusted-record.js'
import { toMetadata } from '../../../src/conductor/sandbox-metadata.js'
import { type Claim, claimTask } from '../../../src/conductor/spawn/claim-task.js'
import type { Intent } from '../../../src/protocol/intent.js'
import { formatTimestamp } from '../../../src/protocol/key.js'
import type { JsonObject } from '../../../src/protocol/record.js'
import { E2bSandboxes } from '../../../src/sandbox/e2b-sandboxes.js'
import type { SandboxSummary } from '../../../src/sandbox/remote-sandbox.js'
import { S3Intents, sandboxesOf } from '../../../src/stores/s3/s3-intents.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { holdManifests } from '../../support/hold-manifests.js'
import { plantInS3 } from '../../support/plant-s3.js'
import { startTcpProxy } from '../../support/proxy.js'
import { recordFor } from '../../support/records.js'
import { startTestStack, type TestStack } from '../../support/stack.js'

const LINE = 'x'.repeat(99)

describe('a conductor that comes after another', () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await startTestStack()
  })
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })

  const provider = (): E2bSandboxes => {
    const { E2B_API_KEY: apiKey } = stack.e2b.env
    return new E2bSandboxes({ apiKey, apiUrl: stack.e2b.url, sandboxUrl: stack.e2b.url })
  }

  it('attaches to a running worker, and hears all that it prints from the byte it asks for', async () => {
    const first = stack.conductor({ id: 'attach' })
    const left = await first.spawnWorker({
      taskId: 'attached',
      // What a login shell says is nobody's output, whoever has the shell.
      files: { '/home/user/.bash_profile': 'echo oops; echo oops >&2\n' },
      command:
        'printf "é1\\n"; printf "\\374\\337e1\\n" >&2; until [ -e go ]; do sleep 0.02; done; echo 2; echo r >r; persist-result -- r; exit 7',
      outputs: ['r', 'never'],
    })
    await new Promise((heard) => left.once('stderr', heard))
    const leftEnd = expect(left.wait()).rejects.toMatchObject({ code: 'CLOSED' })
    const { stderrOffsetBytes } = await left.detach()
    expect(stderrOffsetBytes).toBe(5)
    await leftEnd
    await expect(left.terminate()).rejects.toMatchObject({ code: 'CLOSED' })
    await left[Symbol.asyncDispose]()
    await first.close()
    // What a sandbox makes of its own record decides over nothing but itself, and not for how long it goes on.
    const file = '/workspace/.results/.worker/attached/worker.json'
    const lie = `s/"attempt":1/"attempt":7/; s/"spawn_id":"[^"]*"/"spawn_id":"other"/`
    await stack.inSandbox(left.sandboxId, `sed '${lie}' ${file} >/tmp/lie && cat /tmp/lie >${file}`)
    await using second = stack.conductor({ id: 'attach' })
    const worker = await second.attach('attached', { stdoutOffsetBytes: 2, stderrOffsetBytes: 2 })
    expect(worker.attempt).toBe(1)
    expect(await second.attach('attached')).toBe(worker)
    const out: string[] = []
    worker.on('stdout', (text) => out.push(text))
    const err: string[] = []
    worker.on('stderr', (text) => err.push(text))
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    expect(await worker.wait()).toEqual({ outcome: 'failed', exitCode: 7, signal: null })
    expect(out.join('')).toMatch(/^1\n2\nattached\/.*-r\n$/)
    expect(err.join('')).toBe('e1\n')
    expect((await worker.run('echo again')).runId).toBe('2')
    const receipt = await worker.terminate()
    expect(receipt).toMatchObject({ outcome: 'succeeded', missingOutputs: ['never'] })
    expect(receipt.results).toMatchObject([{ tiers: ['s3'], verified: true }])
    await expect(second.attach('attached')).rejects.toMatchObject({ code: 'NOT_FOUND' })
  })

  it('takes up what a process that was killed had running, byte for byte, and finishes what had ended', async () => {
    await using crashed = await startConductor(stack)
    const [running, exited, paused, idle, vanished, nameless = ''] = await crashed.spawned
    crashed.kill()
    await stack.pauseSandbox(paused as string)
    await stack.killSandbox(vanished as string)
    await using conductor = stack.conductor({ id: 'crash' })
    // Younger ones may be another process's that is about to make their sandbox.
    const intents = new S3Intents(stack.at)
    const intent = (await intents.read(nameless))?.intent as Intent
    await intents.write({ ...intent, created_at: new Date(Date.now() - 130_000).toISOString() }, undefined)
    const heard: Record<string, string> = {}
    let isRecovered = false
    let toldEarly = false
    const { workers, receipts, failures } = await conductor.recover({
      onWorker: (worker) => {
        worker.on('stdout', (text) => {
          if (worker.taskId === 'crash-running' && !isRecovered) toldEarly = true
          heard[worker.taskId] = (heard[worker.taskId] ?? '') + text
        })
      },
    })
    isRecovered = true
    expect(failures).toEqual([])
    expect(workers.map(({ taskId }) => taskId)).toEqual(['crash-running'])
    const told = receipts.map(({ taskId, outcome, exitCode, results }) => [
      taskId,
      outcome,
      exitCode,
      results.length,
    ])
    expect(told.sort()).toEqual([
      ['crash-exited', 'failed', 3, 1],
      ['crash-idle', 'idle', null, 0],
      ['crash-paused', 'succeeded', 0, 1],
      [nameless, 'lost', null, 2],
    ])
    const certificate = await conductor.results(nameless).latest('death-certificate.json')
    expect(await certificate?.json()).toMatchObject({
      // Whoever saw it go is gone, too.
      cause: 'unknown',
      evidence: [/^conductor crash began/, /no sandbox/, /stored 1 result/].map((text) =>
        expect.stringMatching(text),
      ),
    })
    const [worker] = workers
    await stack.inSandbox(running as string, 'touch /workspace/go')
    expect(await worker?.wait()).toMatchObject({ outcome: 'succeeded', exitCode: 0 })
    expect(heard['crash-exited']).toBe('ended\n')
    expect(heard['crash-running']).toBe(Array.from({ length: 2000 }, (_, i) => `${i} ${LINE}\n`).join(''))
    // Whoever listens only to what recover() gives hears all of it, too.
    expect(toldEarly).toBe(false)
    expect((await worker?.terminate())?.results).toHaveLength(1)
    expect(new Set([running, exited, paused, idle, vanished]).size).toBe(5)
    expect(await stack.sandboxCount()).toBe(0)
    expect(await conductor.recover()).toEqual({ workers: [], receipts: [], failures: [] })
    const open: string[] = []
    for await (const taskId of intents.listOpen()) open.push(taskId)
    expect(open).toEqual([])
    expect((await conductor.prune({ olderThanDays: 0, tasks: ['crash-idle', nameless] })).failed).toEqual([])
    expect(await intents.read(nameless)).toBeUndefined()
    expect(await intents.read('crash-exited')).toEqual({ intent: undefined, etag: expect.any(String) })
  })

  it('does not take a command for ended that is about to start', async () => {
    await using first = stack.conductor({ id: 'starting' })
    const wait = 'until [ -e /workspace/go ]; do sleep 0.02; done'
    const left = await first.spawnWorker({
      taskId: 'starting',
      // What comes before the supervisor takes its time, as on a machine with much to do.
      files: { '/home/user/.bash_profile': `chmod() { ${wait}; command chmod "$@"; }\n` },
      command: 'exit 6',
    })
    await left.detach()
    await using second = stack.conductor({ id: 'starting' })
    const { workers, receipts } = await second.recover()
    expect(receipts).toEqual([])
    await stack.inSandbox(left.sandboxId, 'command touch /workspace/go')
    expect(await workers[0]?.wait()).toMatchObject({ outcome: 'failed', exitCode: 6 })
    await workers[0]?.terminate()
  })

  it('tells by the word of the conductor that ended a worker what that has left', async () => {
    await using first = stack.conductor({ id: 'either' })
    await using second = stack.conductor({ id: 'either' })
    const command = 'echo x >here; echo y | persist-result -q --name y -'
    const worker = await first.spawnWorker({ taskId: 'ended-by-other', outputs: ['here', 'never'], command })
    await worker.wait()
    const theirs = await (await second.attach('ended-by-other')).terminate()
    const mine = await worker.terminate()
    expect(mine).toMatchObject({ outcome: 'succeeded', exitCode: 0, sealed: true, undelivered: [] })
    const told = ({ results, missingOutputs }: Receipt) => [
      results.map(({ key, tiers }) => [key, tiers]),
      missingOutputs,
    ]
    expect(told(mine)).toEqual(told(theirs))
    expect(mine.missingOutputs).toEqual(['never'])
    expect(mine.results).toHaveLength(2)
  })

  it('keeps every command from beginning while it finishes a worker, and lets them again where it left off', async () => {
    await using conductor = stack.conductor({ id: 'fence', s3: null })
    const worker = await conductor.spawnWorker({ taskId: 'fenced' })
    const sandbox = await provider().connect(worker.sandboxId, 60_000)
    const spec = { taskId: 'fenced', localDir: '/workspace/.results', force: false }
    // Its own status is no less one for being the same.
    expect(await worker.run('exit 199')).toMatchObject({ runId: '1', exitCode: 199 })
    // A number is one command's, of whichever conductor.
    await using second = stack.conductor({ id: 'fence', s3: null })
    const same = await second.attach('fenced')
    await same.wait()
    expect(await same.run('exit 197')).toMatchObject({ runId: '2', exitCode: 197 })
    await expect(worker.run('exit 8')).rejects.toMatchObject({ code: 'EXISTS', retryable: true })
    expect(await worker.run('exit 8')).toMatchObject({ runId: '3', exitCode: 8 })
    await same.detach()
    const fence = await Fence.take(sandbox, { ...spec, takesStock: true })
    expect(fence?.stock).toEqual({ v: 1, outputs: [], records: [] })
    const other = await Fence.take(sandbox, spec)
    expect(other?.stock).toBeUndefined()
    const refused = { code: 'EXISTS', retryable: true }
    for (let i = 0; i < 2; i++)
      await expect(worker.run('touch /workspace/ran')).rejects.toMatchObject(refused)
    await fence?.lift()
    await expect(worker.run('touch /workspace/ran')).rejects.toMatchObject(refused)
    await other?.lift()
    await stack.inSandbox(worker.sandboxId, '[ ! -e /workspace/ran ]')
    // Nobody renewed this one in two minutes, that one had no room for a time, and the last is of another sandbox.
    const folder = '/workspace/.results/.worker/fenced'
    const mine = `${folder}/finishing-${worker.sandboxId.replace(/[^A-Za-z0-9]/g, '')}`
    const lapsed = `echo $(($(cut -d. -f1 /proc/uptime) - 120)) >${mine}-a; touch -d '-3 minutes' ${mine}-b`
    await stack.inSandbox(
      worker.sandboxId,
      `${lapsed}; cut -d. -f1 /proc/uptime >${folder}/finishing-other-a`,
    )
    const heard = new Promise((tell) => worker.once('stdout', tell))
    const running = await worker.start(
      'echo r >r; persist-result r; until [ -e go ]; do sleep 0.02; done; exit 5',
    )
    await heard
    await expect(Fence.take(sandbox, { ...spec, takesStock: true })).rejects.toMatchObject(refused)
    // Nobody takes stock of what still runs, even where it is to be ended.
    const forced = await Fence.take(sandbox, { ...spec, force: true, takesStock: true })
    expect(forced?.stock).toBeUndefined()
    await forced?.lift()
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    expect(await running.ended).toMatchObject({ exitCode: 5 })
    // There is only the spool, so that it is refused, and may go on.
    await expect(worker.terminate()).rejects.toMatchObject({ code: 'UNDELIVERED' })
    expect(await worker.run('persist-result -q r')).toMatchObject({ exitCode: 0 })
    expect(await worker.kill()).toMatchObject({ outcome: 'succeeded', undelivered: [{}, {}] })
  })

  it('tells of no command of an earlier sandbox with the same volume', async () => {
    const volume = 'shared'
    const given = { taskId: 'shared', volume }
    await using first = stack.conductor({ id: 'shared' })
    const earlier = await first.spawnWorker({ ...given, command: 'echo before; exit 6' })
    await earlier.wait()
    await earlier.terminate()
    await (await first.spawnWorker(given)).detach()
    await using second = stack.conductor({ id: 'shared' })
    const worker = await second.attach('shared')
    expect(worker.state).toBe('ready')
    expect(await worker.wait()).toEqual({ outcome: 'idle', exitCode: null, signal: null })
    let printed = ''
    const heard = new Promise<void>((tell) =>
      worker.on('stdout', (text) => {
        printed += text
        tell()
      }),
    )
    const running = await worker.start('echo on; until [ -e go ]; do sleep 0.02; done; exit 4')
    await heard
    // Nor is its end taken for that of this one, also where the volume had no room for the number of a process.
    await stack.inSandbox(worker.sandboxId, ': >/workspace/.results/.worker/shared/runs/1/pid')
    const sandbox = await provider().connect(worker.sandboxId, 60_000)
    const fence = Fence.take(sandbox, { taskId: 'shared', localDir: '/workspace/.results', force: false })
    await expect(fence).rejects.toMatchObject({ code: 'EXISTS', retryable: true })
    await using third = stack.conductor({ id: 'shared' })
    const again = await third.attach('shared')
    expect(again.state).toBe('running')
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    expect(await running.ended).toMatchObject({ runId: '1', exitCode: 4, stdout: 'on\n' })
    expect(await again.wait()).toMatchObject({ exitCode: 4 })
    expect(printed).toBe('on\n')
    await again.detach()
    await worker.terminate()
    // What an earlier conductor wrote there is not the word of one that has not come to it.
    const identity = { taskId: 'shared', spawnId: 'bare', conductorId: 'shared', attempt: 3, volume } as const
    const rest = { deadlineAt: undefined, encryptionKey: undefined, access: 'presigned' } as const
    const localDir = '/workspace/.results'
    const bare = await provider().create({
      timeoutMs: 60_000,
      metadata: toMetadata({ ...identity, ...rest, localDir }),
      envs: {},
      volumeMounts: { [localDir]: volume },
    })
    await expect(third.attach('shared')).rejects.toMatchObject({ code: 'EXISTS', retryable: true })
    await bare.kill()
  })

  it('believes a sandbox no more time than conductors gave it', async () => {
    const intents = new S3Intents(stack.at)
    const nowMs = Date.now()
    const inHours = (hours: number): string => new Date(nowMs + hours * 3_600_000).toISOString()
    const told = { v: 1, task_id: 'longer', spawn_id: 'own', created_at: inHours(0) } as const
    const identity = {
      taskId: 'longer',
      spawnId: 'own',
      conductorId: 'time',
      attempt: 2,
      deadlineAt: new Date(inHours(1)),
      localDir: '/workspace/.results',
      volume: undefined,
      access: 'presigned',
      encryptionKey: undefined,
    } as const
    const trusted = async (hours: number, places: { readonly intents: S3Intents | undefined }) => {
      const rest = { grace_ms: 1, cwd: '/', outputs: [], undeclared: null }
      const said = { ...told, ...rest, spawn_id: 'other', attempt: 1, deadline_at: inHours(hours) }
      const { spawn_id, attempt, deadline_at } = await trustedRecord(said, identity, places)
      expect([spawn_id, attempt]).toEqual(['own', 2])
      return (Date.parse(deadline_at) - nowMs) / 3_600_000
    }
    expect(await trusted(0.5, { intents })).toBe(0.5)
    expect(await trusted(1.1, { intents })).toBe(1.1)
    expect(await trusted(9, { intents })).toBe(1.25)
    await intents.write({ ...told, conductor: 'time', deadline_at: inHours(5) }, null)
    expect(await trusted(4, { intents })).toBe(4)
    expect(await trusted(9, { intents })).toBe(5)
    // Who cannot be asked says nothing against it.
    expect(await trusted(9, { intents: undefined })).toBe(9)
    expect(await trusted(99, { intents: undefined })).toBe(25)
    await intents.close(told)
  })

  it.each([
    ['terminates it', 'node'],
    ['recovers it', 'sh'],
  ] as const)(
    'tells nobody that a result is safe in a worker that another conductor ends (%s)',
    async (how, program) => {
      await using held = await holdManifests(stack.s3.url)
      const { bucket, region, credentials } = { ...stack.s3, bucket: stack.at.bucket }
      const s3 = { bucket, region, credentials, endpoint: held.url }
      const taskId = `two-${program}`
      await using ending = stack.conductor({ id: taskId, s3 })
      await using other = stack.conductor({ id: taskId })
      // Whatever fails below, none of the two waits for its manifest any more when it is closed.
      using _open = { [Symbol.dispose]: held.release }
      const first = how === 'recovers it' ? other : ending
      const spawned = await first.spawnWorker({ taskId, command: 'true' })
      await spawned.wait()
      if (program === 'sh') {
        await stack.inSandbox(
          spawned.sandboxId,
          `rm /workspace/.results/.worker/${taskId}/bin/persist-result.js`,
        )
      }
      const worker = how === 'recovers it' ? spawned : await other.attach(taskId)
      await worker.wait()
      const ended =
        how === 'recovers it' ? ending.recover().then(({ receipts }) => receipts[0]) : spawned.terminate()
      await held.asked
      const persist = `rm .results/.worker/${taskId}/grant.json; echo precious >p; persist-result -q p`
      // One is refused, and another that comes after it.
      for (let i = 0; i < 2; i++) {
        await expect(worker.run(persist)).rejects.toMatchObject({ code: 'EXISTS', retryable: true })
      }
      // What no conductor began.
      const stray = `cd /workspace; PATH=$PWD/.results/.worker/${taskId}/bin:$PATH; ${persist} 2>&1; echo status $?`
      expect(await stack.inSandbox(worker.sandboxId, stray)).toMatch(/is being terminated.*\nstatus 1\n$/)
      held.release()
      expect(await ended).toMatchObject({ taskId, results: [], undelivered: [], sealed: true })
      await expect(worker.run('true')).rejects.toMatchObject({ code: 'SANDBOX_GONE' })
    },
  )

  it('gives nobody a worker while it is at recovering it', async () => {
    await using held = await holdManifests(stack.s3.url)
    const { bucket, region, credentials } = { ...stack.s3, bucket: stack.at.bucket }
    await using first = stack.conductor({ id: 'meanwhile' })
    const wait = 'echo 1; until [ -e go ]; do sleep 0.02; done; exit 7'
    const running = await first.spawnWorker({ taskId: 'meanwhile-running', command: wait })
    const ended = await first.spawnWorker({ taskId: 'meanwhile-ended', command: 'exit 3' })
    await ended.wait()
    await Promise.all([running.detach(), ended.detach()])
    await using second = stack.conductor({
      id: 'meanwhile',
      s3: { bucket, region, credentials, endpoint: held.url },
    })
    using _open = { [Symbol.dispose]: held.release }
    const recovering = second.recover()
    await held.asked
    // Until both are seen to: of one the end is being written down, of the other the command is not followed yet.
    for (const { taskId } of [running, ended]) {
      await expect(second.attach(taskId)).rejects.toMatchObject({ code: 'EXISTS', retryable: true })
      expect(second.workers.get(taskId)).toBeUndefined()
    }
    held.release()
    const { workers, receipts, failures } = await recovering
    expect([workers.length, receipts.length, failures]).toEqual([1, 1, []])
    const worker = await second.attach('meanwhile-running')
    expect([worker, worker.state]).toEqual([workers[0], 'running'])
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    expect(await worker.wait()).toEqual({ outcome: 'failed', exitCode: 7, signal: null })
    // What a recovery has taken up by the time that its conductor is closed is ended with everything else.
    await worker.detach()
    const third = stack.conductor({ id: 'meanwhile' })
    const cut = expect(third.recover()).rejects.toMatchObject({ code: 'CLOSED' })
    await third.close()
    await cut
    await second.attach('meanwhile-running').then((left) => left.terminate())
    expect(await stack.sandboxCount()).toBe(0)
  })

  it('may be two at once: each sandbox is finished once, and its manifest tells how', async () => {
    await using first = stack.conductor({ id: 'twice' })
    for (const n of [1, 2, 3, 4]) {
      const worker = await first.spawnWorker({
        taskId: `twice-${n}`,
        command: `echo ${n} >r; persist-result r; exit ${n}`,
      })
      await worker.wait()
      await worker.detach()
    }
    const gone = [1, 2, 3, 4, 5].map((n) => `twice-gone-${n}`)
    const intents = new S3Intents(stack.at)
    const created_at = new Date(Date.now() - 130_000).toISOString()
    for (const task_id of gone) {
      const sandbox_id = `of-${task_id}`
      await intents.write(
        { v: 1, task_id, spawn_id: 'lost', conductor: 'twice', created_at, sandbox_id },
        null,
      )
    }
    // A third one is about to certify the first of them, and may have done so; its word counts.
    const reserved = `${gone[0]}/20260101-000000-death-certificate.json`
    await intents.reserveCertificate({ task_id: gone[0] as string, spawn_id: 'lost' }, reserved)
    await using a = stack.conductor({ id: 'twice' })
    await using b = stack.conductor({ id: 'twice' })
    const both = await Promise.all([a.recover(), b.recover()])
    expect(both.flatMap(({ failures }) => failures)).toEqual([])
    for (const receipt of both.flatMap(({ receipts }) => receipts)) {
      if (receipt.outcome === 'lost') continue
      expect(receipt).toMatchObject({ outcome: 'failed', exitCode: Number(receipt.taskId.split('-')[1]) })
    }
    for (const n of [1, 2, 3, 4]) {
      const [result] = await a.results(`twice-${n}`).list({ strict: true })
      expect(await result?.text()).toBe(`${n}\n`)
    }
    for (const taskId of gone) {
      const certificates = await a.results(taskId).list({ strict: true })
      expect(certificates.map(({ name }) => name)).toEqual(['death-certificate.json'])
      const told = both.flatMap(({ receipts }) => receipts).filter((receipt) => receipt.taskId === taskId)
      const [certificate] = certificates
      if (taskId === gone[0]) expect(certificate?.key).toBe(reserved)
      for (const { certificateKey } of told) expect(certificateKey).toBe(certificate?.key)
      const manifest = await new S3Manifests(stack.at).read(taskId)
      expect(manifest?.attempts).toMatchObject([{ cause: 'unknown', keys: [certificate?.key] }])
    }
    expect(await stack.sandboxCount()).toBe(0)
  })

  it('has one of two start a task, however wrong their clocks are', async () => {
    const intents = new S3Intents(stack.at)
    const manifests = new S3Manifests(stack.at)
    const claim = async (
      task_id: string,
      conductor: string,
      clockMs: number,
      findSandboxes: () => Promise<readonly SandboxSummary[]>,
    ) => {
      const created_at = new Date(Date.now() + clockMs).toISOString()
      const intent = { v: 1, task_id, spawn_id: conductor, conductor, created_at } as const
      const rest = { removeBare: async () => false, waits: false, bury: async () => true }
      return claimTask({ intent, intents, manifests, findSandboxes, ...rest })
    }
    const news = (sandbox_id: string) => ({ sandbox_id, deadline_at: new Date().toISOString() })
    const none = async (): Promise<[]> => []
    const slow = (await claim('skewed', 'slow', -180_000, none)) as Claim
    const fast = (await claim('skewed', 'fast', 0, none)) as Claim
    await expect(slow.confirm(news('a'))).rejects.toMatchObject({
      code: 'EXISTS',
      message: expect.stringMatching(/conductor fast/),
    })
    await fast.confirm(news('b'))
    // The other way round: it is there a moment after it was looked for.
    const first = (await claim('skewed-too', 'slow', -180_000, none)) as Claim
    const summary = { id: 'a', state: 'running', startedAt: new Date(), metadata: {} } as const
    let looks = 0
    const second = await claim('skewed-too', 'fast', 0, async () => {
      if (looks++ > 0) return [summary]
      await first.confirm(news('a'))
      return []
    })
    expect(second).toEqual([summary])
    for (const { intent } of [slow, fast, first]) await intent.close()
    expect((await intents.read('skewed'))?.intent).toBeUndefined()
  })

  it('does not start a task that another has, unless it is to be attached', async () => {
    await using first = stack.conductor({ id: 'one', maxWorkers: 1 })
    await using second = stack.conductor({ id: 'two', maxWorkers: 1 })
    const both = await Promise.allSettled(
      [first, second].map((conductor) => conductor.spawnWorker({ taskId: 'single', command: 'sleep 1000' })),
    )
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(both.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'EXISTS' } })
    expect(await stack.sandboxCount()).toBe(1)
    const other = both[0]?.status === 'fulfilled' ? second : first
    // A command is known by its folder, which it makes once it runs.
    const begun = '[ -d /workspace/.results/.worker/single/runs/1 ]'
    const { sandboxId = '' } = both.flatMap((one) => (one.status === 'fulfilled' ? one.value : []))[0] ?? {}
    await stack.inSandbox(sandboxId, `until ${begun}; do sleep 0.02; done`)
    const attached = await other.spawnWorker({ taskId: 'single', ifExists: 'attach' })
    expect(attached.state).toBe('running')
    // That it is here already is said at once, while another has the only place.
    const given = new AbortController()
    const placed = other.spawnWorker({ taskId: 'placed', signal: given.signal })
    const once = other.spawnWorker({ taskId: 'single' })
    expect(other.queuedCount).toBe(0)
    given.abort()
    await expect(once).rejects.toMatchObject({ code: 'EXISTS' })
    await expect(placed).rejects.toMatchObject({ name: 'AbortError' })
    await attached.terminate()
    // Sealed, the task may be run again, and keeps what its first sandbox left.
    const missed = { v: 1, task_id: 'single', spawn_id: 'missed', conductor: 'three', attempt: 2 } as const
    const created_at = new Date(Date.now() - 130_000).toISOString()
    await new S3Intents(stack.at).write({ ...missed, created_at, sandbox_id: 'gone' }, undefined)
    const again = await other.spawnWorker({
      taskId: 'single',
      command: 'echo 2 >second; persist-result second',
    })
    await again.wait()
    await again.terminate()
    expect((await other.results('single').list()).map(({ name }) => name)).toContain('second')
    // So is the one in between, whose end nobody had written down.
    const attempts = (await new S3Manifests(stack.at).read('single'))?.attempts
    const told = attempts?.map(({ attempt, outcome, cause }) => [attempt, outcome, cause])
    expect(told).toEqual([
      [1, 'killed', 'stopped'],
      [2, 'lost', 'unknown'],
      [3, 'succeeded', null],
    ])
  })
})

describe('sandboxes whose conductor was killed while S3 was away', () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await startTestStack()
  })
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })

  const agoMs = (ms: number): string => new Date(Date.now() - ms).toISOString()
  const endsOf = async (taskId: string): Promise<unknown> =>
    (await new S3Manifests(stack.at).read(taskId))?.attempts.map(({ attempt, outcome, sandbox_id, keys }) => [
      attempt,
      outcome,
      sandbox_id,
      keys.map((key) => key.slice(key.indexOf('/') + 17)),
    ])

  it('are not told of where there never were any', async () => {
    const intents = new S3Intents(stack.at)
    await using conductor = stack.conductor({ id: 'never' })
    const abandoned = { v: 1, spawn_id: 'abandoned', conductor: 'never', attempt: 1 } as const
    for (const task_id of ['never', 'never-2']) {
      await intents.write({ ...abandoned, task_id, created_at: agoMs(130_000) }, null)
    }
    const worker = await conductor.spawnWorker({ taskId: 'never-2', command: 'true' })
    expect(worker.attempt).toBe(1)
    await worker.wait()
    await worker.terminate()
    expect(await endsOf('never-2')).toEqual([[1, 'succeeded', worker.sandboxId, []]])
    expect(await conductor.recover()).toEqual({ workers: [], receipts: [], failures: [] })
    expect(await endsOf('never')).toBeUndefined()
    expect((await intents.read('never'))?.intent).toBeUndefined()
  })

  it('are told each with its own number, results and one certificate', async () => {
    const intents = new S3Intents(stack.at)
    const task_id = 'apart'
    const of = (attempt: number, ms: number) =>
      ({
        v: 1,
        task_id,
        spawn_id: `s${attempt}`,
        conductor: 'apart',
        attempt,
        created_at: agoMs(ms),
      }) as const
    const first = { ...of(1, 400_000), sandbox_id: 'one' }
    // Of the second one nothing was written down but that it was to be; results tell that it was.
    await intents.write({ ...of(2, 300_000), earlier: [first] }, null)
    const plant = async (name: string, ms: number, metadata: JsonObject = {}): Promise<void> => {
      const created_at = agoMs(ms)
      const timestamp = formatTimestamp(new Date(created_at))
      const body = Buffer.from('{}')
      const record = { ...recordFor({ taskId: task_id, name, timestamp, metadata }, body), created_at }
      await plantInS3(stack.at, [{ record, body }])
    }
    await plant('early', 350_000)
    await plant('late', 250_000)
    await plant('death-certificate.json', 340_000, { cause: 'sandbox_vanished', spawn_id: 's1' })
    await using a = stack.conductor({ id: 'apart' })
    await using b = stack.conductor({ id: 'apart' })
    expect((await Promise.all([a.recover(), b.recover()])).flatMap(({ failures }) => failures)).toEqual([])
    expect(await endsOf(task_id)).toEqual([
      [1, 'lost', 'one', expect.arrayContaining(['early', 'death-certificate.json'])],
      [2, 'lost', '', expect.arrayContaining(['late', 'death-certificate.json'])],
    ])
    expect(await a.results(task_id).list({ strict: true })).toHaveLength(4)
  })

  it('are told with what lies on a volume, also after that of one that came later', async () => {
    const [intents, manifests] = [new S3Intents(stack.at), new S3Manifests(stack.at)]
    const taskId = 'on-disk'
    await using conductor = stack.conductor({ id: 'disk' })
    const worker = await conductor.spawnWorker({ taskId, volume: 'of-{taskId}' })
    const { exitCode } = await worker.run(
      `persist() { echo $1 | persist-result -q --name $1 -; }; persist both && rm .results/.worker/${taskId}/grant.json && persist spooled`,
    )
    expect(exitCode).toBe(0)
    await worker.detach()
    await stack.killSandbox(worker.sandboxId)
    const intent = (await intents.read(taskId))?.intent as Intent
    await intents.write({ ...intent, created_at: agoMs(130_000) }, undefined)
    const body = Buffer.from('{}')
    const record = recordFor({ taskId, name: 'last', timestamp: '20990101-000000' }, body)
    await plantInS3(stack.at, [{ record, body }])
    const exit = { outcome: 'succeeded', exitCode: 0, signal: null } as const
    const next = {
      taskId,
      attempt: 2,
      sandboxId: 'two',
      spawnId: 's2',
      exit,
      records: [record],
      drained: true,
    }
    const sealed = await sealTask(manifests, next)
    // As one is that a conductor wrote which knew of no other.
    await manifests.update(taskId, () => ({ ...sealed, complete: true }))
    expect((await conductor.recover()).failures).toEqual([])
    const names = ['both', 'spooled', 'death-certificate.json']
    expect(await endsOf(taskId)).toEqual([
      [2, 'succeeded', 'two', ['last']],
      [1, 'lost', worker.sandboxId, expect.arrayContaining(names)],
    ])
    const spooled = (await manifests.read(taskId))?.results.find(({ name }) => name === 'spooled')
    expect(spooled?.stored).toEqual([])
    expect(await (await conductor.results(taskId).latest('spooled'))?.text()).toBe('spooled\n')
  })

  it('are written down as soon as S3 is back, also beside one that was lost before', async () => {
    const { hostname, port } = new URL(stack.s3.url)
    await using proxy = await startTcpProxy({ host: hostname, port: Number(port) }, () => ({ kind: 'pass' }))
    const { bucket, region, credentials } = { ...stack.s3, bucket: stack.at.bucket }
    const endpoint = `http://127.0.0.1:${proxy.port}`
    await using conductor = stack.conductor({ id: 'away', s3: { bucket, region, credentials, endpoint } })
    const intents = new S3Intents(stack.at)
    proxy.cut()
    const worker = await conductor.spawnWorker({
      taskId: 'away',
      command: 'echo up; until [ -e go ]; do sleep 0.02; done',
      retries: { lost: 1 },
    })
    const first = worker.sandboxId
    const again = new Promise<void>((told) =>
      worker.on('state', (state) => {
        if (state === 'running') told()
      }),
    )
    await stack.killSandbox(first)
    await again
    expect(worker.attempt).toBe(2)
    proxy.restore()
    const noted = async (): Promise<unknown> =>
      sandboxesOf((await intents.read('away'))?.intent).map(({ attempt, sandbox_id }) => [
        attempt,
        sandbox_id,
      ])
    await expect.poll(noted, { timeout: 60_000, interval: 100 }).toEqual([
      [2, worker.sandboxId],
      [1, first],
    ])
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    await worker.wait()
    await worker.terminate()
    await conductor.recover()
    expect(await endsOf('away')).toEqual([
      [2, 'succeeded', worker.sandboxId, []],
      [1, 'lost', first, ['death-certificate.json']],
    ])
    expect((await intents.read('away'))?.intent).toBeUndefined()
  })
})

/** A conductor in a process of its own, which tells the sandboxes of the workers it spawns, and the last one's task. */
async function startConductor(
  stack: TestStack,
): Promise<AsyncDisposable & { readonly spawned: Promise<readonly string[]>; kill(): void }> {
  const { s3, at, e2b } = stack
  const program = `
    import { Conductor } from './dist/index.js'
    const conductor = new Conductor({ id: 'crash', s3: JSON.parse(process.env.S3) })
    const ids = []
    const spawn = async (name, command, { ends }) => {
      const worker = await conductor.spawnWorker({ taskId: 'crash-' + name, command, outputs: ['out'] })
      if (ends) await worker.wait()
      ids.push(worker.sandboxId)
    }
    await spawn('running', 'i=0; while [ $i -lt 1000 ]; do echo "$i ${LINE}"; i=$((i+1)); done; until [ -e go ]; do sleep 0.02; done; while [ $i -lt 2000 ]; do echo "$i ${LINE}"; i=$((i+1)); done; echo >out', { ends: false })
    await spawn('exited', 'echo ended; echo >out; exit 3', { ends: true })
    await spawn('paused', 'echo >out', { ends: true })
    await spawn('idle', undefined, { ends: false })
    const nameless = await conductor.spawnWorker()
    await nameless.run('echo x | persist-result --name early -')
    ids.push(nameless.sandboxId, nameless.taskId)
    console.log(JSON.stringify(ids))
    setInterval(() => {}, 1000)`
  const env = {
    ...process.env,
    ...e2b.env,
    S3: JSON.stringify({
      bucket: at.bucket,
      endpoint: s3.url,
      region: s3.region,
      credentials: s3.credentials,
    }),
  }
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  return {
    spawned: once(createInterface(child.stdout), 'line').then(
      ([line]) => JSON.parse(line as string) as string[],
    ),
    kill: () => void child.kill('SIGKILL'),
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL')
      await exited
    },
  }
}
