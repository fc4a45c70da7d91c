import { readFile } from 'node:fs/promises'
import { Sandbox, SandboxNotFoundError, TimeoutError } from 'e2b'
import { describe, expect, it } from 'vitest'
import { eventually, findProcesses, ISOLATIONS, uniqueSleep, useHarness } from './harness.js'

describe.each(ISOLATIONS)('lifecycle (%s)', (isolation) => {
  const harness = useHarness({ isolation })

  it('creates, tells about, connects to and kills a sandbox', async () => {
    const { connection } = harness()
    const sandbox = await harness().create({ metadata: { task: 'a' }, timeoutMs: 120_000 })
    const info = await sandbox.getInfo()
    expect(info).toMatchObject({ sandboxId: sandbox.sandboxId, templateId: 'base', state: 'running' })
    expect(info).toMatchObject({
      metadata: { task: 'a' },
      lifecycle: { onTimeout: 'kill', autoResume: false },
    })
    expect(info.endAt.getTime() - info.startedAt.getTime()).toBeGreaterThan(119_000)
    const again = await Sandbox.connect(sandbox.sandboxId, connection)
    await again.files.write('/workspace/x', 'x')
    expect(await sandbox.files.read('/workspace/x')).toBe('x')
    expect(await sandbox.isRunning()).toBe(true)
    expect(await sandbox.kill()).toBe(true)
    expect(await sandbox.kill()).toBe(false)
    expect(await sandbox.isRunning()).toBe(false)
  })

  it('answers for a killed sandbox as E2B does', async () => {
    const { connection } = harness()
    const sandbox = await harness().create()
    const running = sandbox.commands.run('sleep 300')
    const cut = expect(running).rejects.toThrow(TimeoutError)
    await eventually(
      () => sandbox.commands.list(),
      ({ length }) => length === 1,
    )
    await Sandbox.kill(sandbox.sandboxId, connection)
    await cut
    await expect(running).rejects.toThrow(/killed or reached its end of life/)
    await expect(sandbox.commands.run('true')).rejects.toThrow(SandboxNotFoundError)
    await expect(sandbox.commands.list()).rejects.toThrow(TimeoutError)
    await expect(sandbox.files.read('/workspace/x')).rejects.toThrow(TimeoutError)
    await expect(sandbox.files.list('/')).rejects.toThrow(TimeoutError)
    await expect(sandbox.files.watchDir('/workspace', () => {})).rejects.toThrow(SandboxNotFoundError)
    for (const call of [
      () => sandbox.getInfo(),
      () => sandbox.setTimeout(1000),
      () => sandbox.pause(),
      () => sandbox.getMetrics(),
      () => sandbox.connect(),
    ]) {
      await expect(call()).rejects.toThrow(SandboxNotFoundError)
    }
  })

  it('kills at the end of the timeout, which can be moved', async () => {
    const sandbox = await harness().create({ timeoutMs: 600_000 })
    await sandbox.setTimeout(1000)
    await eventually(
      () => sandbox.isRunning(),
      (running) => !running,
    )
    await expect(sandbox.getInfo()).rejects.toThrow(SandboxNotFoundError)
  })

  it('does not shorten the life of a running sandbox when someone connects', async () => {
    const sandbox = await harness().create({ timeoutMs: 600_000 })
    const before = (await sandbox.getInfo()).endAt
    await sandbox.connect({ timeoutMs: 10_000 })
    expect((await sandbox.getInfo()).endAt).toEqual(before)
    await sandbox.connect({ timeoutMs: 900_000 })
    expect((await sandbox.getInfo()).endAt.getTime()).toBeGreaterThan(before.getTime() + 200_000)
    await sandbox.kill()
  })

  it('pauses at the end of the timeout when asked to, and resumes where it was', async () => {
    const sandbox = await harness().create({ lifecycle: { onTimeout: 'pause' } })
    // Renamed into its place, so that it is whole whenever it is read.
    const count = 'cd /workspace; i=0; while :; do i=$((i+1)); echo $i >new; mv new n; sleep 0.02; done'
    const handle = await sandbox.commands.run(count, { background: true })
    const cut = handle.wait().catch((error: unknown) => error)
    await eventually(
      () => sandbox.files.exists('/workspace/n'),
      (exists) => exists,
    )
    await sandbox.setTimeout(100)
    const info = await eventually(
      () => sandbox.getInfo(),
      ({ state }) => state === 'paused',
    )
    expect(info.endAt.getTime()).toBeLessThanOrEqual(Date.now())
    expect(await cut).toBeInstanceOf(TimeoutError)
    expect(await sandbox.isRunning()).toBe(false)
    expect(await sandbox.pause()).toBe(false)
    await expect(sandbox.setTimeout(1000)).rejects.toThrow(SandboxNotFoundError)
    await expect(sandbox.files.read('/workspace/n')).rejects.toThrow(TimeoutError)
    await sandbox.connect({ timeoutMs: 60_000 })
    expect(await sandbox.isRunning()).toBe(true)
    const first = Number(await sandbox.files.read('/workspace/n'))
    await eventually(
      async () => Number(await sandbox.files.read('/workspace/n')),
      (n) => n > first,
    )
    expect((await sandbox.commands.list()).map(({ pid }) => pid)).toEqual([handle.pid])
    expect(await sandbox.commands.kill(handle.pid)).toBe(true)
    await sandbox.kill()
  })

  it('stops every process while paused', async () => {
    const sandbox = await harness().create()
    const sleeps = [uniqueSleep(), uniqueSleep()]
    await sandbox.commands.run(`(setsid setsid sleep ${sleeps[0]} &) >/dev/null 2>&1`)
    await sandbox.commands.run(`exec sleep ${sleeps[1]}`, { background: true })
    const states = async () => {
      const pids = (await Promise.all(sleeps.map((seconds) => findProcesses(`sleep ${seconds}`)))).flat()
      const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8')))
      return lines.filter((line) => line.includes('(sleep)')).map((line) => line.split(' ')[2])
    }
    await eventually(states, (seen) => seen.join() === 'S,S')
    expect(await sandbox.pause()).toBe(true)
    await eventually(states, (seen) => seen.join() === 'T,T')
    await sandbox.connect()
    await eventually(states, (seen) => seen.join() === 'S,S')
    await sandbox.kill()
  })

  it('keeps the files and not the processes when paused without memory', async () => {
    const sandbox = await harness().create({ envs: { STAYS: 'yes' } })
    await sandbox.files.write('/workspace/kept', 'kept')
    await sandbox.commands.run('sleep 300', { background: true })
    expect(await sandbox.pause({ keepMemory: false })).toBe(true)
    await sandbox.connect()
    expect(await sandbox.files.read('/workspace/kept')).toBe('kept')
    expect(await sandbox.commands.list()).toEqual([])
    expect((await sandbox.commands.run('echo $STAYS; cat /workspace/kept')).stdout).toBe('yes\nkept')
    await sandbox.kill()
  })

  it('can be killed while paused', async () => {
    const sandbox = await harness().create()
    await sandbox.commands.run('sleep 300', { background: true })
    await sandbox.pause()
    expect(await sandbox.kill()).toBe(true)
    await expect(sandbox.connect()).rejects.toThrow(SandboxNotFoundError)
  })

  it('resumes on traffic when asked to', async () => {
    const sandbox = await harness().create({ lifecycle: { onTimeout: 'pause', autoResume: true } })
    await sandbox.files.write('/workspace/x', 'x')
    await sandbox.pause()
    expect(await sandbox.files.read('/workspace/x')).toBe('x')
    expect((await sandbox.getInfo()).state).toBe('running')
    await sandbox.kill()
  })

  it('measures', async () => {
    const sandbox = await harness().create()
    await sandbox.commands.run('yes >/dev/null', { background: true })
    await sandbox.getMetrics()
    const last = await eventually(
      async () => (await sandbox.getMetrics()).at(-1),
      (metric) => (metric?.cpuUsedPct ?? 0) > 5,
    )
    expect(last?.memUsed).toBeGreaterThan(500_000)
    expect(last?.memTotal).toBeGreaterThan(last?.memUsed ?? 0)
    expect(last?.diskTotal).toBeGreaterThan(last?.diskUsed ?? 0)
    expect(await sandbox.getMetrics({ start: new Date(Date.now() + 60_000) })).toEqual([])
    await sandbox.kill()
  })
})

describe('lists', () => {
  const harness = useHarness({ isolation: ISOLATIONS[0] })
  const ids = async (query: object, options: object = {}) => {
    const pages = Sandbox.list({ ...harness().connection, query, ...options })
    const found: string[][] = []
    while (pages.hasNext) found.push((await pages.nextItems()).map(({ sandboxId }) => sandboxId))
    return found
  }

  it('filters by metadata, state and start, and cuts into pages', async () => {
    const odd = { 'k k&=%': 'ü v+%2F', group: 'g' }
    const made: string[] = []
    for (let i = 0; i < 5; i += 1)
      made.push((await harness().create({ metadata: { ...odd, i: String(i) } })).sandboxId)
    const newestFirst = [...made].reverse()
    const other = await harness().create({ metadata: { group: 'other' } })
    expect(await ids({ metadata: odd })).toEqual([newestFirst])
    expect(await ids({ metadata: { ...odd, i: '3' } })).toEqual([[made[3]]])
    expect(await ids({ metadata: { group: 'nobody' } })).toEqual([[]])
    expect(await ids({ metadata: odd }, { limit: 2 })).toEqual([
      newestFirst.slice(0, 2),
      newestFirst.slice(2, 4),
      newestFirst.slice(4),
    ])
    await Sandbox.pause(made[1] as string, harness().connection)
    expect(await ids({ metadata: odd, state: ['paused'] })).toEqual([[made[1]]])
    expect((await ids({ metadata: odd, state: ['running'] })).flat()).toHaveLength(4)
    expect(await ids({ metadata: odd })).toEqual([newestFirst])
    await Sandbox.kill(made[0] as string, harness().connection)
    expect((await ids({ metadata: odd })).flat()).not.toContain(made[0])
    const { startedAt } = await other.getInfo()
    expect(await ids({ startedAfter: startedAt })).toEqual([[other.sandboxId]])
  })

  it('keeps pages stable while sandboxes go', async () => {
    const metadata = { batch: 'stable' }
    const made: string[] = []
    for (let i = 0; i < 4; i += 1) made.push((await harness().create({ metadata })).sandboxId)
    const pages = Sandbox.list({ ...harness().connection, query: { metadata }, limit: 2 })
    const first = (await pages.nextItems()).map(({ sandboxId }) => sandboxId)
    for (const id of first) await Sandbox.kill(id, harness().connection)
    const rest = (await pages.nextItems()).map(({ sandboxId }) => sandboxId)
    expect([...first, ...rest].sort()).toEqual([...made].sort())
  })

  it('says what it does not do', async () => {
    const sandbox = await harness().create()
    await expect(sandbox.createSnapshot()).rejects.toThrow(/not supported by the local stand-in/)
    await expect(sandbox.fork()).rejects.toThrow(/not supported by the local stand-in/)
    await expect(Sandbox.listSnapshots(harness().connection).nextItems()).rejects.toThrow(/not supported by/)
  })
})
