import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { SandboxRoot } from '../../files/sandbox-root.js'
import { RequestError } from '../../request-error.js'
import type { CommandSpec, Jail, JailedProcess, Usage } from '../jail.js'
import type { Pipes } from '../pipes.js'
import { addUsage } from '../process-usage.js'
import { runTool, TOOL_ENV } from '../run-tool.js'
import { spawnPiped } from '../spawn-piped.js'
import { NamespaceHandles } from './namespace-handles.js'
import { INIT, LAUNCH, SETUP } from './setup-scripts.js'
import type { Tools } from './tools.js'

/** Variables that would act on nsenter(1), on this machine, before the sandbox is entered. */
const ACTS_ON_LOADER = /^(LD_|GLIBC_|GCONV_|LOCPATH$|NLSPATH$|MALLOC_|LIBMOUNT_)/

/** What every jail of a server uses. */
export interface JailMeans {
  readonly pipes: Pipes
  readonly tools: Tools
}

/** A sandbox in user, mount and process namespaces of its own. */
export class NamespaceJail implements Jail {
  readonly root: SandboxRoot
  readonly dead: Promise<void>
  readonly #init: ChildProcess
  readonly #initPid: number
  readonly #handles: NamespaceHandles
  readonly #pipes: Pipes
  readonly #tools: Tools

  private constructor(
    init: ChildProcess,
    initPid: number,
    handles: NamespaceHandles,
    { pipes, tools }: JailMeans,
  ) {
    this.#init = init
    this.#initPid = initPid
    this.#handles = handles
    this.#pipes = pipes
    this.#tools = tools
    this.root = new SandboxRoot(handles.rootPath)
    this.dead = closed(init).then(() => handles.close())
  }

  /** Mounts and starts a jail; rejects with what the system's tools said when it cannot be had. */
  static async start(tablePath: string, mountPoint: string, means: JailMeans): Promise<NamespaceJail> {
    const init = spawn(
      means.tools.unshare,
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
      const [initPid, holder] = await readNumbers(init)
      const handles = await NamespaceHandles.open({ parent: init.pid ?? 0, init: initPid, holder })
      init.stdin?.write('\n')
      return new NamespaceJail(init, initPid, handles, means)
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
    const { nsenter, timeout } = this.#tools
    const { child, stdin, stdout, stderr, exited, announced } = await spawnPiped(this.#pipes, {
      file: nsenter,
      // nsenter(1) as a parent stops with its child, and then sees neither its end nor the sandbox's. timeout(1) without a time only
      // waits, and ends as the child does, signals included.
      args: [
        ...[...this.#handles.toProcesses, '--no-fork', '--', timeout, '--foreground', '0'],
        ...[nsenter, ...NamespaceHandles.toFiles, '--'],
        ...command,
      ],
      env,
      cwd: '/',
      stdin: spec.stdin,
      inherit: this.#handles.inherit(spec.user),
    })
    const pid = Number.parseInt(await announced, 10)
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
  }

  usage(): Promise<Usage> {
    return addUsage(`${this.#handles.rootPath}/proc`)
  }

  async destroy(): Promise<void> {
    if (this.#init.exitCode === null && this.#init.signalCode === null) {
      // Process 1 gone, the kernel kills all others of its namespace before the parent learns of it.
      process.kill(this.#initPid, 'SIGKILL')
    }
    await this.dead
  }

  async #signal(child: ChildProcess, name: 'SIGTERM' | 'SIGKILL', pid: number): Promise<boolean> {
    if (child.exitCode !== null || child.signalCode !== null) return false
    return this.#enter(`kill -s ${name.slice(3)} ${pid}`)
  }

  async #killAll(signal: 'STOP' | 'CONT'): Promise<void> {
    // The kernel spares process 1 and the caller. That there was nobody else is no failure.
    await this.#enter(`kill -s ${signal} -- -1`)
  }

  async #enter(script: string): Promise<boolean> {
    try {
      await runTool(this.#tools.nsenter, [...this.#handles.toProcesses, '--', '/bin/sh', '-c', script])
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
