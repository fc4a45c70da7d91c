import { mkdirSync, writeFileSync } from 'node:fs'
import { mkdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseDrainReport, parseExitRecord } from '../../../src/protocol/parse.js'
import { FENCE_SECONDS } from '../../../src/protocol/spool-layout.js'
import { startFaultProxy } from '../../support/persister/fault-proxy.js'
import { startHttpReceiver } from '../../support/persister/http-receiver.js'
import { finish, run, start } from '../../support/persister/program.js'
import { httpTarget, spoolTarget } from '../../support/persister/targets.js'
import { makeWorker, type Worker } from '../../support/persister/worker.js'
import { faultedImplementations } from './implementations.js'

const runFile = (worker: Worker, name: string): Promise<string> =>
  readFile(join(worker.localDir, '.worker', worker.taskId, 'runs/r1', name), 'utf8')

describe.concurrent.each(faultedImplementations)('persist-result run, $name', ({ name, argv }) => {
  it('passes output and status through, keeps both, and stores outputs', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const command = 'echo out; echo err >&2; echo result > made.txt; exit 7'
    const args = ['run', '--run-id', 'r1', '--output', 'made.txt', '--output', 'missing.txt', '--']
    const result = await worker.persist([...args, 'sh', '-c', command])
    expect(result).toMatchObject({ status: 7, stdout: 'out\n' })
    expect(result.stderr).toMatch(/^err\n/)
    expect(result.stderr).toMatch(/missing\.txt/)
    const exit = parseExitRecord(await runFile(worker, 'exit.json'))
    expect(exit).toMatchObject({ task_id: worker.taskId, run_id: 'r1', code: 7, signal: null })
    expect(exit.started_at <= exit.ended_at).toBe(true)
    expect(await runFile(worker, 'stdout.log')).toBe('out\n')
    expect(await runFile(worker, 'stderr.log')).toBe('err\n')
    expect(await runFile(worker, 'heartbeat')).toBeDefined()
    const [record, ...more] = await worker.records()
    expect(more).toEqual([])
    expect((await worker.spooled(record?.key ?? '')).toString()).toBe('result\n')
  })

  it('gives the status of a shell when the command was killed or cannot be run', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    expect((await worker.persist(['run', '--run-id', 'r1', '--', 'sh', '-c', 'kill -9 $$'])).status).toBe(137)
    const exit = parseExitRecord(await runFile(worker, 'exit.json'))
    expect(exit).toMatchObject({ code: null, signal: 'SIGKILL' })
    const absent = await worker.persist(['run', '--', './no-such-command'])
    expect(absent.status).toBe(127)
    expect(absent.stderr).toMatch(/no-such-command/)
    await writeFile(join(worker.folder, 'plain'), 'text')
    expect((await worker.persist(['run', '--', './plain'])).status).toBe(126)
    expect((await worker.persist(['run', 'echo'])).status).toBe(2)
  })

  it('kills everything that the command started when it outlasts its grace', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    const command = ['sh', '-c', `sh -c "${stubborn}" & ${stubborn}`]
    const child = start([...argv, 'run', '--run-id', 'r1', '--grace', '200ms', '--', ...command], {
      env: worker.env,
      cwd: worker.folder,
    })
    const finished = finish(child)
    let printed = ''
    child.stdout?.on('data', (chunk) => {
      printed += chunk
      // Each says so once it is deaf.
      if (printed === 'ready\nready\n') child.kill('SIGTERM')
    })
    expect(await finished).toMatchObject({ status: 137 })
    expect(parseExitRecord(await runFile(worker, 'exit.json'))).toMatchObject({
      code: null,
      signal: 'SIGKILL',
    })
    expect((await worker.persist(['run', '--grace', 'soon', '--', 'true'])).status).toBe(2)
  })

  it('once drained with --seal, acknowledges nothing, as long as that fence stands', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'x')
    expect((await worker.persist(['f'])).status).toBe(0)
    const drain = (id: string) => worker.persist(['drain', '--json', '--seal', id])
    const fence = join(worker.localDir, '.worker', worker.taskId, 'finishing-')
    const uptime = async (): Promise<number> => Number.parseInt(await readFile('/proc/uptime', 'utf8'), 10)
    expect((await drain('../x')).status).toBe(2)
    expect((await drain('a')).status).toBe(1)
    expect((await worker.persist(['f'])).status).toBe(0)
    await mkdir(dirname(fence), { recursive: true })
    await writeFile(`${fence}a`, `${await uptime()}\n`)
    expect(parseDrainReport((await drain('a')).stdout).records).toHaveLength(2)
    const late = await worker.persist(['f'])
    expect(late).toMatchObject({ status: 1, stdout: '' })
    expect(late.stderr).toMatch(/is being terminated/)
    // Whoever runs something is not the one to say that nobody ends the sandbox any more.
    expect((await worker.persist(['run', '--', ...argv, 'f'])).status).toBe(1)
    // Nor is who comes next to end it.
    await writeFile(`${fence}b`, '')
    expect((await worker.persist(['f'])).status).toBe(1)
    await rm(`${fence}a`)
    expect((await worker.persist(['f'])).status).toBe(0)
    // There was no room for more than its name.
    expect((await drain('b')).status).toBe(0)
    expect((await worker.persist(['f'])).status).toBe(1)
    const longAgo = new Date(Date.now() - 180_000)
    await utimes(`${fence}b`, longAgo, longAgo)
    expect((await worker.persist(['f'])).status).toBe(0)
    // One that nobody renewed, and one from before the machine began anew.
    for (const at of [(await uptime()) - FENCE_SECONDS, (await uptime()) + 60]) {
      await writeFile(`${fence}b`, `${at}\n`)
      expect((await worker.persist(['f'])).status).toBe(0)
      expect((await drain('b')).status).toBe(1)
    }
  })

  it('acknowledges what was noted before the seal, and nothing else that a remote storage took', async (test) => {
    const receiver = await startHttpReceiver('t')
    test.onTestFinished(() => receiver[Symbol.asyncDispose]())
    const answers: number[] = []
    const proxy = await startFaultProxy(receiver.url, () => {
      // Whoever seals does so while the result is on its way.
      mkdirSync(worker.sealFolder, { recursive: true })
      for (const name of ['finishing-a', 'sealed-a']) writeFileSync(join(worker.sealFolder, name), '')
      const status = answers.shift()
      return status === undefined ? undefined : { kind: 'answer', status }
    })
    test.onTestFinished(() => proxy[Symbol.asyncDispose]())
    const env = { WORKER_RESULTS_ENDPOINT: proxy.url, WORKER_RESULTS_TOKEN: 't' }
    const made = await makeWorker(test, argv, spoolTarget, env)
    const worker = { ...made, sealFolder: join(made.localDir, '.worker', made.taskId) }
    const unseal = () => rm(worker.sealFolder, { recursive: true })
    await writeFile(join(worker.folder, 'f'), 'x')
    const noted = await worker.persist(['f'])
    expect(noted.status).toBe(0)
    expect(receiver.posts).toEqual([noted.key])
    const late = await worker.persist(['f'])
    expect(late).toMatchObject({ status: 1, stdout: '' })
    expect(late.stderr).toMatch(/is being terminated/)
    expect(receiver.posts).toEqual([noted.key])
    // What stores the worker's declared outputs comes before the seal, and seals only then.
    const report = parseDrainReport(
      (await worker.persist(['drain', '--json', '--output', 'f', '--seal', 'a'])).stdout,
    )
    expect(report.records.map(({ stored }) => stored.length)).toEqual([1, 1])
    await unseal()
    // Under another key it is another record, which was written after the seal.
    answers.push(409)
    const moved = await worker.persist(['f'])
    expect(moved).toMatchObject({ status: 1, stdout: '' })
    expect(moved.stderr).toMatch(/is being terminated/)
    await unseal()
    // There is no record where there is no room for one.
    await rm(join(worker.localDir, worker.taskId), { recursive: true })
    await writeFile(join(worker.localDir, worker.taskId), '')
    const before = receiver.posts.length
    const homeless = await worker.persist(['f'])
    expect(homeless).toMatchObject({ status: 1, stdout: '' })
    expect(homeless.stderr).toMatch(/is being terminated/)
    expect(receiver.posts).toHaveLength(before + 1)
  })

  it('in a conductor’s worker, acknowledges no result of another task that only the spool has', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'x')
    await mkdir(join(worker.localDir, '.worker', worker.taskId, 'bin'), { recursive: true })
    const foreign = await worker.persist(['-t', 'another', 'f'])
    expect(foreign).toMatchObject({ status: 1, stdout: '' })
    expect(foreign.stderr).toMatch(/no remote storage took the result/)
    expect((await worker.persist(['f'])).status).toBe(0)
  })

  it('passes signals on to everything that the command started', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const command =
      "sh -c 'trap \"echo inner; exit 0\" TERM; echo ready; while :; do sleep 0.05; done' & trap 'wait; exit 5' TERM; wait"
    const child = start([...argv, 'run', '--run-id', 'r1', '--', 'sh', '-c', command], {
      env: worker.env,
      cwd: worker.folder,
    })
    const finished = finish(child)
    child.stdout?.once('data', () => child.kill('SIGTERM'))
    expect(await finished).toMatchObject({ status: 5, stdout: 'ready\ninner\n' })
    expect(parseExitRecord(await runFile(worker, 'exit.json'))).toMatchObject({ code: 5 })
  })

  it.for(['SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const)(
    'passes %s on, which no shell between may have made the command deaf to',
    async (signal, test) => {
      const worker = await makeWorker(test, argv, spoolTarget)
      // Where nothing undoes that deafness, it is SIGTERM that comes.
      const command = `trap 'exit 5' ${signal.slice(3)} TERM; echo ready; while :; do sleep 0.05; done`
      const child = start([...argv, 'run', '--run-id', 'r1', '--', 'sh', '-c', command], {
        env: worker.env,
        cwd: worker.folder,
      })
      const finished = finish(child)
      child.stdout?.once('data', () => child.kill(signal))
      expect(await finished).toMatchObject({ status: 5, stdout: 'ready\n' })
    },
  )

  it('keeps start and end of output that is too long', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const command = 'i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done'
    const result = await worker.persist([
      'run',
      '--run-id',
      'r1',
      '--log-limit',
      '2000',
      '--',
      'sh',
      '-c',
      command,
    ])
    const all = Array.from({ length: 3000 }, (_, i) => `line ${i}\n`).join('')
    expect(result.stdout).toBe(all)
    const gap = `\n[persist-result: ${all.length - 2000} bytes left out]\n`
    expect(await runFile(worker, 'stdout.log')).toBe(all.slice(0, 1000) + gap + all.slice(-1000))
  })

  it('has each line of output in the log while the command runs', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    // It prints the next line only when it sees the one before.
    const command = `log=$WORKER_RESULTS_LOCAL_DIR/.worker/$WORKER_ID/runs/r1/stdout.log; i=0
while [ $i -lt 20 ]; do
  i=$((i+1)) looks=0
  echo "line $i"
  until grep -qx "line $i" "$log"; do looks=$((looks+1)); [ $looks -lt 500 ] || exit 9; sleep 0.02; done
done`
    const args = ['run', '--run-id', 'r1', '--log-limit', '300000', '--', 'sh', '-c', command]
    expect((await worker.persist(args)).status).toBe(0)
  })

  it('does not wait for processes that the command leaves behind', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const command = 'echo $$; sleep 1000 & exit 0'
    const result = await worker.persist(['run', '--run-id', 'r1', '--', 'sh', '-c', command])
    expect(result.status).toBe(0)
    // It is there yet.
    process.kill(-Number(result.stdout.trim()), 'SIGKILL')
  })

  it('keeps and passes on all of the output, however late its reader takes it', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    // More than a pipe holds, but no more than lies in all of them: the command ends before anybody reads.
    const lines = name === 'node' ? 40_000 : 20_000
    const supervised = [...argv, 'run', '--run-id', 'r1', '--', 'seq', `${lines}`].map((word) => `'${word}'`)
    const ended = `'${worker.localDir}/.worker/${worker.taskId}/runs/r1/exit.json'`
    const reader = `until [ -e ${ended} ]; do sleep 0.05; done; sleep 1; cat`
    const piped = `${supervised.join(' ')} | (${reader})`
    const { stdout } = await run(['sh', '-c', piped], { env: worker.env, cwd: worker.folder })
    const all = Array.from({ length: lines }, (_, i) => `${i + 1}\n`).join('')
    expect(stdout === all).toBe(true)
    expect((await runFile(worker, 'stdout.log')) === all).toBe(true)
  })

  it('does not let a failing storage change the status', async (test) => {
    const proxy = await startFaultProxy('http://127.0.0.1:9', () => ({ kind: 'reset', afterBytes: 0 }))
    test.onTestFinished(() => proxy[Symbol.asyncDispose]())
    const env = { WORKER_RESULTS_ENDPOINT: proxy.url, WORKER_RESULTS_DEADLINE_SECONDS: '1' }
    const worker = await makeWorker(test, argv, spoolTarget, env)
    const result = await worker.persist(['run', '--output', 'o', '--', 'sh', '-c', 'echo x > o; exit 0'])
    expect(result.status).toBe(0)
    expect(result.stderr).toMatch(/HTTP storage failed: /)
  })

  it('hides the grant from the command and keeps it for persist-result', async (test) => {
    const grant = { v: 1, task_id: '', expires_at: '2027-01-01T00:00:00.000Z' }
    const worker = await makeWorker(test, argv, spoolTarget)
    const text = JSON.stringify({ ...grant, task_id: worker.taskId })
    const result = await worker.persist(['run', '--', 'env'], { env: { WORKER_RESULTS_GRANT: text } })
    expect(result.stdout).not.toContain('WORKER_RESULTS_GRANT=')
    expect(result.stdout).toContain(`WORKER_ID=${worker.taskId}\n`)
    expect(result.stdout).toContain(`WORKER_RESULTS_LOCAL_DIR=${worker.localDir}\n`)
    const path = join(worker.localDir, '.worker', worker.taskId, 'grant.json')
    expect(await readFile(path, 'utf8')).toBe(text)
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  it('lets the command call persist-result by its name', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'x')
    const result = await worker.persist(['run', '--', 'sh', '-c', 'persist-result -q f'])
    expect(result.status).toBe(0)
    expect((await worker.spooled(result.key)).toString()).toBe('x')
  })

  it('stores checkpoints while the command runs, each content once', async (test) => {
    const receiver = await startHttpReceiver('t')
    test.onTestFinished(() => receiver[Symbol.asyncDispose]())
    const worker = await makeWorker(test, argv, httpTarget(receiver, 't'))
    // The command goes on only when it sees that the checkpoint before was stored.
    const wait = (count: number): string =>
      `while [ "$(ls "$WORKER_RESULTS_LOCAL_DIR/$WORKER_ID" 2>/dev/null | grep -c 'state.*meta')" -lt ${count} ]; do sleep 0.05; done`
    const command = `echo one > state; ${wait(1)}; echo two > state; ${wait(2)}; exit 4`
    const args = ['run', '--checkpoint', 'state', '--every', '50ms', '--']
    const result = await worker.persist([...args, 'sh', '-c', command])
    expect(result.status).toBe(4)
    const contents = [...receiver.forms.values()].map(({ file }) => file.toString()).sort()
    expect(contents).toEqual(['one\n', 'two\n'])
  })

  it('stores the log as a result when asked to', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await worker.persist(['run', '--log', '--', 'echo', 'kept'])
    const record = (await worker.records()).find(({ name }) => name === 'stdout.log')
    expect((await worker.spooled(record?.key ?? '')).toString()).toBe('kept\n')
  })
})

describe.concurrent.each(faultedImplementations)('persist-result drain, $name', ({ argv }) => {
  it('stores what changed, delivers what is pending, and reports', async (test) => {
    const receiver = await startHttpReceiver('t')
    test.onTestFinished(() => receiver[Symbol.asyncDispose]())
    const worker = await makeWorker(test, argv, httpTarget(receiver, 't'))
    await writeFile(join(worker.folder, 'a'), 'first')
    await writeFile(join(worker.folder, 'b'), 'other')
    const pending = await worker.persist(['-q', '-n', 'early', 'a'], { env: { WORKER_RESULTS_ENDPOINT: '' } })
    const drain = async (...paths: string[]) => {
      const result = await worker.persist(['drain', '--json', ...paths.flatMap((path) => ['--output', path])])
      expect(result.status).toBe(0)
      expect(result.stdout.trimEnd()).not.toContain('\n')
      return parseDrainReport(result.stdout)
    }
    const first = await drain('a', 'b', 'missing')
    expect(first.outputs.map(({ path, status }) => [path, status])).toEqual([
      ['a', 'stored'],
      ['b', 'stored'],
      ['missing', 'missing'],
    ])
    expect(first.records.map(({ stored }) => stored.map(({ tier }) => tier))).toEqual([
      ['http'],
      ['http'],
      ['http'],
    ])
    expect([...receiver.forms.keys()].sort()).toEqual(first.records.map(({ key }) => key))
    expect(receiver.posts).toContain(pending.key)
    await writeFile(join(worker.folder, 'b'), 'changed')
    const second = await drain('a', 'b')
    expect(second.outputs).toMatchObject([
      { status: 'unchanged', key: first.outputs[0]?.key },
      { status: 'stored', key: expect.not.stringMatching(first.outputs[1]?.key ?? '') },
    ])
    expect(receiver.posts).toHaveLength(4)
  })

  it('reports also when nothing can be delivered', async (test) => {
    const env = { WORKER_RESULTS_ENDPOINT: 'http://127.0.0.1:9/none', WORKER_RESULTS_DEADLINE_SECONDS: '1' }
    const worker = await makeWorker(test, argv, spoolTarget, env)
    await writeFile(join(worker.folder, 'a'), 'x')
    const result = await worker.persist(['drain', '--json', '--output', 'a'])
    expect(result.status).toBe(0)
    expect(result.stderr).toMatch(/HTTP storage failed: /)
    const report = parseDrainReport(result.stdout)
    expect(report.outputs).toMatchObject([{ status: 'stored' }])
    // Which one it is depends on whether the second is over before it is refused.
    const http = { code: expect.stringMatching(/^(UNAVAILABLE|TIMEOUT)$/) }
    expect(report.records).toMatchObject([{ stored: [], errors: { http } }])
  })
})
