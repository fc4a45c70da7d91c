import { CommandExitError, InvalidArgumentError, type Sandbox, TimeoutError } from 'e2b'
import { beforeAll, describe, expect, it } from 'vitest'
import { describeNamespaces, eventually, ISOLATIONS, useHarness } from './harness.js'

/** What a foreground command that fails is rejected with. */
async function failure(run: Promise<unknown>): Promise<CommandExitError> {
  const error = await run.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(CommandExitError)
  return error as CommandExitError
}

describe.each(ISOLATIONS)('commands (%s)', (isolation) => {
  const harness = useHarness({ isolation })
  let sandbox: Sandbox
  beforeAll(async () => {
    sandbox = await harness().create({ envs: { FROM_SANDBOX: 'sandbox', BOTH: 'sandbox' } })
  })

  it('returns both outputs and the exit code', async () => {
    expect(await sandbox.commands.run('echo out; echo err >&2')).toMatchObject({
      exitCode: 0,
      stdout: 'out\n',
      stderr: 'err\n',
    })
    const error = await failure(sandbox.commands.run('echo partly; exit 7'))
    expect(error).toMatchObject({ exitCode: 7, stdout: 'partly\n', error: 'exit status 7' })
  })

  it('reports a signal as Go does', async () => {
    expect(await failure(sandbox.commands.run('kill -KILL $$'))).toMatchObject({
      exitCode: -1,
      error: 'signal: killed',
    })
    expect(await failure(sandbox.commands.run('kill -TERM $$'))).toMatchObject({
      exitCode: -1,
      error: 'signal: terminated',
    })
    expect(await failure(sandbox.commands.run('sleep 100 & kill -TERM $!; wait $!'))).toMatchObject({
      exitCode: 143,
    })
  })

  it('gives real pipes, which a shell can open again', async () => {
    const { stdout, stderr } = await sandbox.commands.run('echo a >/dev/stderr; echo b | tee /dev/stdout')
    expect({ stdout, stderr }).toEqual({ stdout: 'b\nb\n', stderr: 'a\n' })
  })

  it('lets later variables win and inherits nothing', async () => {
    process.env.LOCAL_E2B_TEST_SECRET = 'leaked'
    try {
      const { stdout } = await sandbox.commands.run(
        'echo "$FROM_SANDBOX $BOTH $MINE $USER $E2B_SANDBOX $E2B_SANDBOX_ID [$LOCAL_E2B_TEST_SECRET]"',
        { envs: { BOTH: 'command', MINE: 'one two' } },
      )
      expect(stdout).toBe(`sandbox command one two user true ${sandbox.sandboxId} []\n`)
    } finally {
      delete process.env.LOCAL_E2B_TEST_SECRET
    }
  })

  it('hands variables on that the loader would act on, and only to the command', async () => {
    const { stdout } = await sandbox.commands.run('echo "$LD_LIBRARY_PATH"', {
      envs: { LD_LIBRARY_PATH: '/opt/with space' },
    })
    expect(stdout).toBe('/opt/with space\n')
  })

  it('starts in the home folder, in a given one, or not at all', async () => {
    expect((await sandbox.commands.run('touch here; ls -d /home/user/here')).exitCode).toBe(0)
    await sandbox.files.makeDir('/workspace/deep er/er')
    expect((await sandbox.commands.run('basename "$PWD"', { cwd: '/workspace/deep er/er' })).stdout).toBe(
      'er\n',
    )
    await expect(sandbox.commands.run('true', { cwd: '/nowhere' })).rejects.toThrow(InvalidArgumentError)
  })

  it('refuses unknown users', async () => {
    await expect(sandbox.commands.run('true', { user: 'nobody-here' })).rejects.toThrow(/invalid username/)
  })

  it('has node and python3', async () => {
    const { stdout } = await sandbox.commands.run('node -p 1+1 && python3 -c "print(2+2)"')
    expect(stdout).toBe('2\n4\n')
  })

  it('streams output while a background command runs, and writes to its stdin', async () => {
    const seen: string[] = []
    const handle = await sandbox.commands.run('while read -r line; do echo "got $line"; done; echo end', {
      background: true,
      stdin: true,
      onStdout: (text) => void seen.push(text),
    })
    await handle.sendStdin('one\n')
    await eventually(
      () => seen.join(''),
      (text) => text === 'got one\n',
    )
    expect((await sandbox.commands.list()).map(({ pid }) => pid)).toContain(handle.pid)
    await handle.closeStdin()
    expect(await handle.wait()).toMatchObject({ exitCode: 0, stdout: 'got one\nend\n' })
    expect((await sandbox.commands.list()).map(({ pid }) => pid)).not.toContain(handle.pid)
  })

  it('gives commands without stdin an empty one', async () => {
    expect((await sandbox.commands.run('cat; echo done')).stdout).toBe('done\n')
    const handle = await sandbox.commands.run('sleep 100', { background: true })
    await expect(sandbox.commands.sendStdin(handle.pid, 'x')).rejects.toThrow(/stdin/)
    await handle.kill()
  })

  it('kills with SIGKILL, without waiting for others that hold its output', async () => {
    const handle = await sandbox.commands.run('trap "" TERM; (sleep 300 & echo ready; wait)', {
      background: true,
    })
    await eventually(
      () => handle.stdout,
      (text) => text.includes('ready'),
    )
    expect(await handle.kill()).toBe(true)
    expect(await failure(handle.wait())).toMatchObject({ exitCode: -1, error: 'signal: killed' })
    expect(await sandbox.commands.kill(handle.pid)).toBe(false)
    expect(await sandbox.commands.kill(99_999_999)).toBe(false)
  })

  it('lets a second client follow, and tells how it ended to one that comes late', async () => {
    const handle = await sandbox.commands.run('read -r x; echo "$x"; exit 4', {
      background: true,
      stdin: true,
    })
    const second = await sandbox.commands.connect(handle.pid)
    await second.sendStdin('shared\n')
    for (const one of [handle, second]) {
      expect(await failure(one.wait())).toMatchObject({ exitCode: 4, stdout: 'shared\n' })
    }
    const late = await sandbox.commands.connect(handle.pid)
    expect(await failure(late.wait())).toMatchObject({ exitCode: 4, stdout: '' })
  })

  it('keeps a command running when its client leaves', async () => {
    const handle = await sandbox.commands.run('read -r x; echo "$x" >/workspace/after', {
      background: true,
      stdin: true,
    })
    await handle.disconnect()
    await sandbox.commands.sendStdin(handle.pid, 'still here\n')
    await eventually(
      () => sandbox.files.exists('/workspace/after'),
      (there) => there,
    )
    await eventually(
      () => sandbox.files.read('/workspace/after'),
      (text) => text === 'still here\n',
    )
  })

  it('kills a command whose time is up', async () => {
    const marker = `/workspace/late-${isolation}`
    await expect(
      sandbox.commands.run(`(sleep 0.1; echo $$ >${marker}); sleep 60`, { timeoutMs: 600 }),
    ).rejects.toThrow(TimeoutError)
    await eventually(
      () => sandbox.commands.list(),
      (running) => running.every(({ args }) => !args.join().includes(marker)),
    )
  })

  it('carries large and binary output whole, however slowly it is read', async () => {
    const { stdout } = await sandbox.commands.run('head -c 8000000 /dev/zero | tr "\\0" a; echo ü')
    expect(stdout).toHaveLength(8_000_002)
    expect(stdout.endsWith('aü\n')).toBe(true)
  })

  it('refuses what no process can be started with', async () => {
    await expect(sandbox.commands.run(`echo ${'x'.repeat(3_000_000)}`)).rejects.toThrow(InvalidArgumentError)
    await expect(sandbox.commands.run('echo a\0b')).rejects.toThrow(InvalidArgumentError)
  })

  it('says that terminals are not supported', async () => {
    await expect(sandbox.pty.create({ cols: 80, rows: 24, onData: () => {} })).rejects.toThrow(
      /not supported/,
    )
  })
})

describeNamespaces('the way into a sandbox', () => {
  const harness = useHarness({ isolation: 'namespaces' })

  it('does not go by the PATH of the command', async () => {
    const sandbox = await harness().create()
    await sandbox.commands.run(
      'mkdir bin; for t in nsenter timeout sh env; do printf "#!/bin/sh\necho fake" >bin/$t; chmod +x bin/$t; done',
    )
    const run = (PATH: string) => sandbox.commands.run('echo real', { envs: { PATH } })
    expect((await run('/home/user/bin')).stdout).toBe('real\n')
    expect((await run('/nowhere')).stdout).toBe('real\n')
  })

  it('stays open when a command stops itself', async () => {
    const sandbox = await harness().create()
    const handle = await sandbox.commands.run('kill -STOP $$; exit 5', { background: true })
    await sandbox.commands.run(
      `until grep -q "^State:.T" /proc/${handle.pid}/status; do :; done; kill -CONT ${handle.pid}`,
    )
    expect(await failure(handle.wait())).toMatchObject({ exitCode: 5 })
  })
})

describeNamespaces('who a command is', () => {
  const harness = useHarness({ isolation: 'namespaces' })

  it('is the user by default and root on request', async () => {
    const sandbox = await harness().create()
    const ask = 'echo "$(id -un) $(id -u) $HOME $PWD"'
    expect((await sandbox.commands.run(ask)).stdout).toBe('user 1000 /home/user /home/user\n')
    expect((await sandbox.commands.run(ask, { user: 'root' })).stdout).toBe('root 0 /root /root\n')
  })

  it('sees the commands of others as its own, as one user does', async () => {
    const sandbox = await harness().create()
    const handle = await sandbox.commands.run('sleep 100', { background: true })
    const { stdout } = await sandbox.commands.run(
      `tr '\\0' ' ' </proc/${handle.pid}/cmdline; ls /proc/${handle.pid}/fd | head -1; kill ${handle.pid}`,
    )
    expect(stdout).toBe('sleep 100 0\n')
    expect(await failure(handle.wait())).toMatchObject({ error: 'signal: terminated' })
  })
})
