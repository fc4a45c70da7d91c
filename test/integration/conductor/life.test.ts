import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { describe, expect, it } from 'vitest'
import type { Conductor } from '../../../src/conductor/conductor.js'
import { drainSandbox } from '../../../src/conductor/end/drain.js'
import { E2bSandboxes } from '../../../src/sandbox/e2b-sandboxes.js'
import { runBounded } from '../../../src/sandbox/run-bounded.js'
import type { TestStack } from '../../support/stack.js'
import { makeTempDir } from '../../support/temp-dir.js'
import { useConductor } from '../../support/use-conductor.js'

describe('a worker’s life', () => {
  let stack: TestStack
  let conductor: Conductor
  useConductor((aStack, aConductor) => {
    stack = aStack
    conductor = aConductor
  })

  it('can be extended, and its grant with it', async () => {
    const worker = await conductor.spawnWorker({ taskId: 'extended', timeoutMs: 60_000 })
    const read = async (): Promise<{
      readonly deadline: number
      readonly grant: number
      readonly mode: string
    }> => {
      const { stdout } = await worker.run(
        'cd .results/.worker/extended; node -p \'JSON.stringify({ deadline: Date.parse(require("./worker.json").deadline_at), grant: Date.parse(require("./grant.json").expires_at), mode: fs.statSync("grant.json").mode.toString(8) })\'',
      )
      return JSON.parse(stdout)
    }
    const before = await read()
    await worker.extend(3_600_000)
    const after = await read()
    expect(after.deadline - before.deadline).toBeGreaterThan(3_500_000)
    expect(after.grant - before.grant).toBeGreaterThan(3_500_000)
    expect(after.mode).toBe('100600')
    const up = new Promise((heard) => worker.once('stdout', heard))
    const running = worker.run('echo up; exec sleep 1000')
    // Before, a signal may end what is only about to run it.
    await up
    await worker.extend(1)
    await expect(running).resolves.toMatchObject({ signal: 'SIGTERM' })
    expect(await worker.terminate()).toMatchObject({ outcome: 'timed_out', cause: 'deadline' })
    await expect(worker.extend(1_000)).rejects.toMatchObject({ code: 'CLOSED' })
    await expect(worker.extend(0)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  })

  it('leaves what nobody declared, when asked, without secrets and without what is a result already', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'undeclared',
      undeclared: { maxBytes: 1_000_000, exclude: ['*.tmp'] },
      files: { '/workspace/input.txt': 'given' },
      outputs: ['declared.txt'],
      command: `mkdir -p "deep/fold er" .ssh node_modules/x
        echo declared >declared.txt; echo stored >stored.txt; persist-result --quiet stored.txt
        echo forgotten >"deep/fold er/for'gotten.txt"; echo -n >empty.txt
        echo key >.ssh/id_x; echo key >a.pem; echo TOKEN >.env; echo x >node_modules/x/y; echo t >x.tmp
        head -c 2000000 /dev/zero >big.bin`,
    })
    await worker.wait()
    const receipt = await worker.terminate()
    expect(receipt.failedOutputs).toEqual([])
    const archive = await conductor.results('undeclared').latest('undeclared-outputs.tar.gz')
    expect(archive?.metadata).toEqual({ undeclared: true, files: 2, left_out: 1 })
    await using dir = await makeTempDir()
    const target = `${dir.path}/out`
    expect(await archive?.extract(target)).toMatchObject({ files: 2 })
    const { readdir, readFile } = await import('node:fs/promises')
    expect((await readdir(target, { recursive: true })).sort()).toEqual([
      'workspace',
      'workspace/deep',
      'workspace/deep/fold er',
      "workspace/deep/fold er/for'gotten.txt",
      'workspace/empty.txt',
    ])
    expect(await readFile(`${target}/workspace/deep/fold er/for'gotten.txt`, 'utf8')).toBe('forgotten\n')
  })

  it.each([
    { what: 'archive', tool: 'tar', blocks: 8 },
    { what: 'list', tool: 'awk', blocks: 0 },
  ])('says that nothing undeclared was kept where their $what did not fit', async ({ tool, blocks }) => {
    const worker = await conductor.spawnWorker({
      taskId: `cut-${tool}`,
      undeclared: {},
      // As where the disk is full: what it writes can be no longer than that.
      files: { '/home/user/.bash_profile': `${tool}() { (ulimit -f ${blocks}; command ${tool} "$@"); }\n` },
      command: 'head -c 100000 /dev/urandom >noise',
    })
    await worker.wait()
    const receipt = await worker.terminate()
    expect(receipt.results).toEqual([])
    expect(receipt.failedOutputs).toMatchObject([{ path: 'undeclared-outputs.tar.gz' }])
  })

  it('keeps what nobody declared also where some of it cannot be read', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'unreadable',
      undeclared: {},
      // It was there a moment ago.
      files: { '/home/user/.bash_profile': 'tar() { rm -f /workspace/gone; command tar "$@"; }\n' },
      command: 'echo f >f; echo g >gone',
    })
    await worker.wait()
    expect(await worker.terminate()).toMatchObject({ results: [{ tiers: ['s3'] }], failedOutputs: [] })
  })

  it('leaves what nobody declared once, however often its end is tried', async () => {
    await using alone = stack.conductor({ s3: null })
    const worker = await alone.spawnWorker({ taskId: 'tried-again', undeclared: {}, command: 'echo f >f' })
    await worker.wait()
    for (let i = 0; i < 2; i++)
      await expect(worker.terminate()).rejects.toMatchObject({ code: 'UNDELIVERED' })
    expect((await worker.results.list()).map(({ name }) => name)).toEqual(['undeclared-outputs.tar.gz'])
    await worker.kill()
  })

  it('leaves each output once, when one conductor drains it while the drain of another still runs', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'drained',
      command: 'head -c 50000000 /dev/zero >out',
    })
    await worker.wait()
    const { E2B_API_KEY: apiKey } = stack.e2b.env
    const sandboxes = new E2bSandboxes({ apiKey, apiUrl: stack.e2b.url, sandboxUrl: stack.e2b.url })
    const sandbox = await sandboxes.connect(worker.sandboxId, 600_000)
    const localDir = '/workspace/.results'
    const spec = { taskId: 'drained', localDir, outputs: ['out'], cwd: '/workspace', seal: undefined }
    const drain = (quietMs = 60_000) => drainSandbox(sandbox, spec, { repair: false, bounds: { quietMs } })
    const both = await Promise.all([drain(), drain()])
    const statuses = both.flatMap(({ report }) => report.outputs.map(({ status }) => status))
    expect(statuses.sort()).toEqual(['stored', 'unchanged'])
    // One that is stuck, or prints without end, is given up and ended.
    const program = `${localDir}/.worker/drained/bin/persist-result`
    await stack.inSandbox(
      worker.sandboxId,
      `echo 'sleep 1234567' >${program}; touch -d '1 hour ago' ${program}`,
    )
    await expect(drain(1_500)).rejects.toMatchObject({ code: 'TIMEOUT' })
    const flood = runBounded(sandbox, 'yes 1234567', { maxBytes: 1_000_000, quietMs: 60_000 })
    await expect(flood).rejects.toMatchObject({ code: 'TOO_LARGE' })
    const isLeft = "tr '\\0' ' ' </proc/$p/cmdline 2>/dev/null | grep -q '^[a-z]* 1234567'"
    const wait = `for i in $(seq 200); do l=; for p in $(cd /proc; echo [0-9]*); do if ${isLeft}; then l=1; fi; done; [ $l ] || exit 0; sleep 0.05; done; exit 1`
    await stack.inSandbox(worker.sandboxId, wait)
    expect((await worker.terminate()).results).toHaveLength(1)
  })

  it('ends in order when its conductor’s process is asked to end', async () => {
    const program = `
      import { closeOnSignals, Conductor } from './dist/index.js'
      const conductor = new Conductor({ id: 'signalled', s3: JSON.parse(process.env.S3) })
      closeOnSignals(conductor)
      const worker = await conductor.spawnWorker({ taskId: 'signalled', command: 'echo r >r; persist-result --quiet r; echo up; sleep 1000' })
      worker.on('stdout', (text) => console.log(text))`
    const { s3, at, e2b } = stack
    const place = { bucket: at.bucket, endpoint: s3.url, region: s3.region, credentials: s3.credentials }
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      env: { ...process.env, ...e2b.env, S3: JSON.stringify(place) },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(createInterface(child.stdout), 'line')
      child.kill('SIGTERM')
      expect(await once(child, 'exit')).toEqual([null, 'SIGTERM'])
    } finally {
      child.kill('SIGKILL')
    }
    // In key order, which is that of their names where both were stored within a second.
    const left = await conductor.results('signalled').list({ strict: true })
    expect(left.map(({ name }) => name).sort()).toEqual(['death-certificate.json', 'r'])
    expect((await conductor.tasks().list()).find(({ taskId }) => taskId === 'signalled')).toMatchObject({
      state: 'sealed',
      outcome: 'killed',
    })
  })
})
