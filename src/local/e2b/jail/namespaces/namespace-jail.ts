import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { SandboxRoot } from '../../files/sandbox-root.js'
import { RequestError } from '../../request-error.js'
import type { CommandSpec, Jail, JailedProcess, Usage } from '../jail.js'
import type { Pipes } from '../pipes.js'
import { addUsage } from '../process-usage.js'
import { runTool } from '../run-tool.js'
import { spawnPiped } from '../spawn-piped.js'
import { NamespaceHandles } from './namespace-handles.js'
import { INIT, LAUNCH, SETUP } from './setup-scripts.js'

/** Variables that would act on nsenter(1), on this machine, before the sandbox is entered. */
const ACTS_ON_LOADER = /^(LD_|GLIBC_|GCONV_|LOCPATH$|NLSPATH$|MALLOC_|LIBMOUNT_)/
const WAKE_EVERY_MS = 20
const TOOL_ENV = { PATH: process.env.PATH ?? '/usr/bin:/bin:/usr/sbin:/sbin', LC_ALL: 'C' }

/** A sandbox in user, mount and process namespaces of its own. */
export class NamespaceJail implements Jail {
  readonly root: SandboxRoot
  readonly dead: Promise<void>
  readonly #init: ChildProcess
  readonly #initPid: number
  readonly #handles: NamespaceHandles
  readonly #pipes: Pipes
  readonly #entered = new Set<ChildProcess>()

  private constructor(init: ChildProcess, initPid: number, handles: NamespaceHandles, pipes: Pipes) {
    this.#init = init
    this.#initPid = initPid
    this.#handles = handles
    this.#pipes = pipes
    this.root = new SandboxRoot(handles.rootPath)
    this.dead = closed(init).then(() => handles.close())
  }

  /** Mounts and starts a jail; rejects with what the system's tools said when it cannot be had. */
  static async start(tablePath: string, mountPoint: string, pipes: Pipes): Promise<NamespaceJail> {
    const init = spawn(
      'unshare',
      [
        ...['--user', '--map-root-user', '--mount', '--pid', '--fork', '--kill-child', '--'],
        ...['/bin/sh', '-c', SETUP, 'setup', tablePath, mountPoint, INIT],
      ],
      { env: TOOL_ENV, cwd: '/', detached: true, stdio: ['pipe', 'pipe', 'pipe'] },
    )
    // It may die before it has read what is written to it; its exit says so.
    init.stdin?.on('error', () => {})
    try {
      await once(init, 'spawn')
      const [initPid, holderPid] = await readNumbers(init)
      const handles = await NamespaceHandles.open(initPid, holderPid)
      init.stdin?.write('\n')
      return new NamespaceJail(init, initPid, handles, pipes)
    } catch (error) {
      init.stdin?.destroy()
      init.kill('SIGKILL')
      throw error
    }
  }

  async start(spec: CommandSpec): Promise<JailedProcess> {
    const loaderEnv = Object.entries(spec.env).filter(([name]) => ACTS_ON_LOADER.test(name))
    const env = Object.fromEntries(Object.entries(spec.env).filter(([name]) => !ACTS_ON_LOADER.test(name)))
    const command = [
      ...['/bin/sh', '-c', LAUNCH, 'launch', spec.cwd],
      ...(loaderEnv.length === 0 ? [] : ['/usr/bin/env', ...loaderEnv.map((pair) => pair.join('='))]),
      spec.file,
      ...spec.args,
    ]
    const becomeUser = ['nsenter', '--user=/proc/self/fd/4', '--preserve-credentials', '--']
    const piped = await spawnPiped(this.#pipes, {
      file: 'nsenter',
      args: [...this.#handles.enter, '--', ...(spec.user === 'user' ? becomeUser : []), ...command],
      env,
      cwd: '/',
      stdin: spec.stdin,
      inherit: [this.#handles.userFd],
    })
    const { child, stdin, stdout, stderr, exited } = piped
    this.#entered.add(child)
    void exited.then(() => this.#entered.delete(child))
    const pid = Number.parseInt(await piped.announced, 10)
    if (Number.isNaN(pid)) {
      stdout.destroy()
      stderr.destroy()
      throw new RequestError('unavailable', 'the sandbox ended before the command could start')
    }
    return { pid, stdin, stdout, stderr, exited, signal: (name) => this.#signal(child, name, pid) }
  }

  async freeze(): Promise<void> {
    await this.#killAll('STOP')
  }

  async thaw(): Promise<void> {
    await this.#killAll('CONT')
    this.#wakeEntered()
  }

  usage(): Promise<Usage> {
    return addUsage(`${this.#handles.rootPath}/proc`)
  }

  async destroy(): Promise<void> {
    if (this.#init.exitCode === null && this.#init.signalCode === null) {
      // Process 1 gone, the kernel kills all others of its namespace before the parent learns of it.
      process.kill(this.#initPid, 'SIGKILL')
    }
    // A stopped nsenter(1) does not bury its child, and the kernel waits for that before it lets process 1 go.
    const wake = setInterval(() => this.#wakeEntered(), WAKE_EVERY_MS)
    this.#wakeEntered()
    await this.dead
    clearInterval(wake)
  }

  async #signal(child: ChildProcess, name: 'SIGTERM' | 'SIGKILL', pid: number): Promise<boolean> {
    if (child.exitCode !== null || child.signalCode !== null) return false
    const kill = await this.#enter(`kill -s ${name.slice(3)} ${pid}`)
    if (kill) child.kill('SIGCONT')
    return kill
  }

  /** nsenter(1) stops itself when its child is stopped. */
  #wakeEntered(): void {
    for (const child of this.#entered) child.kill('SIGCONT')
  }

  async #killAll(signal: 'STOP' | 'CONT'): Promise<void> {
    // The kernel spares process 1 and the caller. That there was nobody else is no failure.
    await this.#enter(`kill -s ${signal} -- -1`)
  }

  async #enter(script: string): Promise<boolean> {
    try {
      await runTool('nsenter', [...this.#handles.enter, '--', '/bin/sh', '-c', script])
      return true
    } catch (error) {
      // The shell's own verdict: no such process. Anything else is a failure of ours.
      if (error instanceof Error && 'code' in error && error.code === 1) return false
      throw error
    }
  }
}

async function readNumbers(init: ChildProcess): Promise<[number, number]> {
  let complaint = ''
  init.stderr?.setEncoding('utf8').on('data', (text: string) => {
    // Only what it says before it is ready matters; it is read on so that it never blocks.
    if (complaint.length < 2000) complaint += text
  })
  const lines = createInterface({ input: init.stdout as Readable })
  const line = await new Promise<string>((resolve, reject) => {
    lines.once('line', resolve)
    init.once('close', () => reject(new RequestError('internal', `no sandbox: ${complaint.trim()}`)))
  })
  const [initPid, holderPid] = line.split(' ').map(Number)
  if (!initPid || !holderPid) throw new RequestError('internal', `no sandbox: ${line} ${complaint}`)
  return [initPid, holderPid]
}

async function closed(init: ChildProcess): Promise<void> {
  if (init.exitCode !== null || init.signalCode !== null) return
  await once(init, 'exit')
}
