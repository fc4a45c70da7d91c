import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Sandbox, SandboxNotFoundError } from 'e2b'
import { build } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { thorough } from '../../support/thorough.js'
import {
  describeNamespaces,
  eventually,
  findProcesses,
  type Harness,
  ISOLATIONS,
  startHarness,
  uniqueSleep,
  useHarness,
} from './harness.js'

const CROWD = thorough ? 50 : 20

describe.each(ISOLATIONS)('what a kill leaves (%s)', (isolation) => {
  let dataDir: string
  let harness: Harness
  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'data-'))
    harness = await startHarness({ isolation, dataDir })
  })
  afterAll(async () => {
    await harness.e2b.close()
    await rm(dataDir, { recursive: true, force: true })
  })

  it('is no process, however deep, and nothing on disk', async () => {
    const sandbox = await harness.create()
    const sleeps = Array.from({ length: 5 }, uniqueSleep)
    await sandbox.commands.run(`
      (setsid sh -c 'trap "" TERM HUP INT; (exec sleep ${sleeps[0]}) & exit' >/dev/null 2>&1 &)
      (cd / && env -i setsid sleep ${sleeps[1]} &) </dev/null >/dev/null 2>&1
      (cd / && setsid setsid sleep ${sleeps[4]} &) </dev/null >/dev/null 2>&1
      nohup sh -c 'sleep ${sleeps[2]}; true' >/dev/null 2>&1 &
      (setsid setsid sleep ${sleeps[3]} &) </dev/null >/dev/null 2>&1
      mkdir -p /workspace/${'d/'.repeat(300)} /workspace/closed && touch /workspace/closed/x && chmod 000 /workspace/closed`)
    const wanted = isolation === 'plain' ? sleeps.filter((_, i) => i !== 1) : sleeps
    const running = async () => Promise.all(sleeps.map((seconds) => findProcesses(`sleep ${seconds}`)))
    await eventually(running, (found) => found.every((pids) => pids.length > 0))
    await sandbox.kill()
    for (const seconds of wanted) expect(await findProcesses(`sleep ${seconds}`)).toEqual([])
    // Without namespaces one that has cut every tie cannot be told from a stranger.
    for (const pid of (await running()).flat()) process.kill(pid, 'SIGKILL')
    expect(await readdir(join(dataDir, 'sandboxes'))).toEqual([])
    // All that a sandbox mounts, it mounts there; others on this machine mount as they like.
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(dataDir)
  })

  it('is nothing of a paused sandbox either', async () => {
    const sandbox = await harness.create()
    const seconds = uniqueSleep()
    await sandbox.commands.run(`sleep ${seconds}`, { background: true })
    await eventually(
      () => findProcesses(`sleep ${seconds}`),
      ({ length }) => length > 0,
    )
    await sandbox.pause()
    expect(await findProcesses(`sleep ${seconds}`)).not.toEqual([])
    await sandbox.kill()
    expect(await findProcesses(`sleep ${seconds}`)).toEqual([])
    expect(await readdir(join(dataDir, 'sandboxes'))).toEqual([])
  })

  it('keeps sandboxes apart', async () => {
    const [one, two] = [await harness.create(), await harness.create()]
    // This machine may have a folder of that name too.
    const path = `/workspace/.results/${one.sandboxId}`
    await one.files.write(path, 'one')
    await one.commands.run('echo one >/tmp/mine')
    expect(await two.files.exists(path)).toBe(false)
    // Node itself may lie below /tmp, when that is where this project was cloned to.
    const { stdout } = await two.commands.run('find /tmp /workspace -name mine -o -name .results')
    expect(stdout).toBe('')
    await expect(stat(path)).rejects.toThrow('ENOENT')
    await one.kill()
    await two.kill()
  })

  it(`runs ${CROWD} at once`, async () => {
    const started = performance.now()
    const sandboxes = await Promise.all(
      Array.from({ length: CROWD }, (_, i) => harness.create({ metadata: { i: String(i) } })),
    )
    const created = performance.now()
    const outputs = await Promise.all(
      sandboxes.map(async (sandbox, i) => {
        await sandbox.files.write('/workspace/i', String(i))
        return (await sandbox.commands.run('cat /workspace/i; echo " $E2B_SANDBOX_ID"')).stdout
      }),
    )
    const ran = performance.now()
    expect(outputs).toEqual(sandboxes.map(({ sandboxId }, i) => `${i} ${sandboxId}\n`))
    expect(await Promise.all(sandboxes.map((sandbox) => sandbox.kill()))).toEqual(sandboxes.map(() => true))
    const times = [created - started, ran - created, performance.now() - ran].map((ms) => Math.round(ms))
    console.info(
      `${CROWD} sandboxes (${isolation}): create ${times[0]} ms, write and run ${times[1]} ms, kill ${times[2]} ms`,
    )
    expect(await readdir(join(dataDir, 'sandboxes'))).toEqual([])
  })

  it('reaches servers on this machine', async () => {
    const server = createServer((_, res) => res.end('reached'))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      const sandbox = await harness.create()
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      const { stdout } = await sandbox.commands.run(
        `node -e "fetch('${url}').then(r => r.text()).then(console.log)"`,
      )
      expect(stdout).toBe('reached\n')
      await sandbox.kill()
    } finally {
      server.close()
    }
  })
})

describeNamespaces('a namespace sandbox', () => {
  const harness = useHarness({ isolation: 'namespaces' })

  it('sees its own processes only, and survives killing all of them', async () => {
    const sandbox = await harness().create()
    const { stdout } = await sandbox.commands.run('ls /proc | grep -c "^[0-9]"')
    expect(Number(stdout)).toBeLessThan(8)
    await sandbox.commands.run('sleep 100', { background: true })
    await sandbox.commands.run('kill -KILL -1')
    await sandbox.commands.run('kill -KILL -1; kill -KILL 1; true', { user: 'root' })
    expect((await sandbox.commands.run('echo alive')).stdout).toBe('alive\n')
  })

  it('buries orphans', async () => {
    const sandbox = await harness().create()
    await sandbox.commands.run('for i in $(seq 50); do (setsid true &) ; done')
    await eventually(
      async () => (await sandbox.commands.run('ls /proc | grep -c "^[0-9]"')).stdout.trim(),
      (count) => Number(count) < 8,
    )
  })

  it('has the system read-only and the rest its own', async () => {
    const sandbox = await harness().create()
    const { stdout } = await sandbox.commands.run(
      'for d in / /workspace /home/user /tmp /var/tmp /run /root /dev/shm /usr /etc /usr/local; do touch $d/x 2>/dev/null && echo "$d"; done; true',
    )
    expect(stdout.trim().split('\n')).toEqual([
      '/',
      '/workspace',
      '/home/user',
      '/tmp',
      '/var/tmp',
      '/run',
      '/root',
      '/dev/shm',
    ])
    const { stdout: secrets } = await sandbox.commands.run(
      'ls -d /etc/shadow /root/.ssh /home/* /proc/1/root/boot 2>/dev/null; true',
    )
    expect(secrets).toBe('/home/user\n')
  })

  it('that dies by itself is gone for its clients', async () => {
    const sandbox = await harness().create()
    const seconds = uniqueSleep()
    const running = sandbox.commands.run(`sleep ${seconds}`)
    const cut = expect(running).rejects.toThrow()
    const [pid] = await eventually(
      () => findProcesses(`sleep ${seconds}`),
      ({ length }) => length > 0,
    )
    // Any of them may end while it is looked at.
    const read = (path: string) => readFile(path, 'utf8').catch(() => '')
    const children = async (of: number) =>
      (await read(`/proc/${of}/task/${of}/children`)).trim().split(' ').filter(Boolean).map(Number)
    for (const child of await children(process.pid)) {
      const text = await read(`/proc/${child}/cmdline`)
      if (!text.includes(sandbox.sandboxId)) continue
      for (const init of await children(child)) process.kill(init, 'SIGKILL')
    }
    await cut
    await eventually(
      () => sandbox.isRunning(),
      (is) => !is,
    )
    await expect(sandbox.getInfo()).rejects.toThrow(SandboxNotFoundError)
    expect(pid).toBeGreaterThan(0)
  })
})

describe('the server', () => {
  it('ends everything when it is closed', async () => {
    const harness = await startHarness()
    const seconds = uniqueSleep()
    const sandbox = await harness.create()
    await sandbox.commands.run(`sleep ${seconds}`, { background: true })
    await eventually(
      () => findProcesses(`sleep ${seconds}`),
      ({ length }) => length > 0,
    )
    const before = new Set(await readdir(tmpdir()))
    await harness.e2b.close()
    await harness.e2b.close()
    expect(await findProcesses(`sleep ${seconds}`)).toEqual([])
    const ours = [...before].filter((name) => name.startsWith('stu-e2b-'))
    const after = await readdir(tmpdir())
    expect(ours.filter((name) => !after.includes(name)).length).toBeGreaterThan(0)
    await expect(fetch(harness.e2b.url)).rejects.toThrow()
  })
})

describe('plain sandboxes', () => {
  const harness = useHarness({ isolation: 'plain' })

  it('find their own folders where a command names them', async () => {
    const sandbox = await harness().create({ envs: { WORKER_RESULTS_LOCAL_DIR: '/workspace/.results' } })
    const { stdout } = await sandbox.commands.run(
      'mkdir -p "$WORKER_RESULTS_LOCAL_DIR" && echo a >/workspace/.results/a && cd /tmp && echo b >"/home/user/b" && echo "/usr/workspace /tmpfile https://host/tmp"',
      { cwd: '/workspace' },
    )
    expect(stdout).toBe('/usr/workspace /tmpfile https://host/tmp\n')
    expect(await sandbox.files.read('/workspace/.results/a')).toBe('a\n')
    expect(await sandbox.files.read('/home/user/b')).toBe('b\n')
    const { stdout: real } = await sandbox.commands.run('cd /workspace && pwd')
    expect(await sandbox.files.read(`${real.trim()}/.results/a`)).toBe('a\n')
    expect((await sandbox.commands.run(`cat ${real.trim()}/.results/a`)).stdout).toBe('a\n')
  })
})

describeNamespaces('a server that is killed', () => {
  let folder: string
  let server: ChildProcess | undefined
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'killed-'))
  })
  afterAll(async () => {
    server?.kill('SIGKILL')
    await rm(folder, { recursive: true, force: true })
  })

  it('takes its sandboxes with it', async () => {
    const bundle = join(folder, 'server.cjs')
    await build({
      stdin: {
        contents: `import { startLocalE2b } from './src/local/e2b/index.js'
          startLocalE2b({ dataDir: process.argv[2] }).then((e2b) => console.log(JSON.stringify(e2b.env)))`,
        resolveDir: process.cwd(),
      },
      bundle: true,
      platform: 'node',
      format: 'cjs',
      outfile: bundle,
      logLevel: 'error',
    })
    server = spawn(process.execPath, [bundle, join(folder, 'data')], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = (await once(
      createInterface({ input: server.stdout as NodeJS.ReadableStream }),
      'line',
    )) as [string]
    const env = JSON.parse(line) as Record<string, string>
    const connection = {
      apiKey: env.E2B_API_KEY ?? '',
      apiUrl: env.E2B_API_URL ?? '',
      sandboxUrl: env.E2B_SANDBOX_URL ?? '',
    }
    const sandbox = await Sandbox.create(connection)
    const sleeps = [uniqueSleep(), uniqueSleep(), uniqueSleep()]
    await sandbox.commands.run(`(setsid setsid sleep ${sleeps[0]} >/dev/null 2>&1 &)`)
    const paused = await Sandbox.create(connection)
    await paused.commands.run(`sleep ${sleeps[2]}`, { background: true })
    const handle = await sandbox.commands.run(`trap "" HUP TERM; sleep ${sleeps[1]}; true`, {
      background: true,
    })
    const cut = handle.wait().catch((error: unknown) => error)
    const running = async () =>
      (await Promise.all(sleeps.map((seconds) => findProcesses(`sleep ${seconds}`)))).flat()
    await eventually(running, ({ length }) => length >= 3)
    await paused.pause()
    server.kill('SIGKILL')
    await cut
    await eventually(running, ({ length }) => length === 0)
    // What it left in a folder that is kept goes with the next one.
    const next = await startHarness({ dataDir: join(folder, 'data') })
    expect(await readdir(join(folder, 'data'))).not.toContain(sandbox.sandboxId)
    await next.e2b.close()
    expect(await readdir(join(folder, 'data'))).toEqual(['volumes'])
  })
})
