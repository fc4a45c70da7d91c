import { setTimeout as delay } from 'node:timers/promises'
import { SandboxRoot } from '../../files/sandbox-root.js'
import { errnoOf, RequestError } from '../../request-error.js'
import type { CommandSpec, Jail, JailedProcess, JailSpec, Usage } from '../jail.js'
import type { Pipes } from '../pipes.js'
import { sumUsage } from '../process-usage.js'
import { spawnPiped } from '../spawn-piped.js'
import { type Family, findProcesses } from './find-processes.js'
import { OWN_PATHS, pathRewriter } from './rewrite-paths.js'

const LAUNCH = `echo "$$" >&3
exec 3>&-
cd -- "$1" || exit 126
shift
exec "$@"`

/** Between rounds of killing: long enough for the kernel to have buried those of the last round. */
const KILL_ROUND_MS = 5
const MAX_KILL_ROUNDS = 400

/**
 * A sandbox that is only a private folder: its processes are ordinary ones of the server's user, and see the whole machine.
 * Well-known paths in what is started are rewritten to the folder; those inside the files it reads are not. A process that has left its
 * session, its environment and the folder all at once can no longer be told from a stranger, and survives.
 */
export class PlainJail implements Jail {
  readonly root: SandboxRoot
  readonly dead: Promise<void>
  readonly #rootFolder: string
  readonly #sandboxId: string
  readonly #pipes: Pipes
  readonly #rewrite: (text: string) => string
  readonly #mounts: ReadonlyMap<string, string>
  readonly #leaders: Family['leaders'] = new Map()
  #die: () => void = () => {}
  #destroyed = false

  constructor({ sandboxId, rootFolder, mounts }: JailSpec, pipes: Pipes) {
    this.#sandboxId = sandboxId
    this.#rootFolder = rootFolder
    this.#pipes = pipes
    this.#mounts = new Map(mounts.map(({ source, path }) => [path, source]))
    this.#rewrite = pathRewriter(rootFolder, OWN_PATHS, this.#mounts)
    this.root = new SandboxRoot(rootFolder, { mounts: this.#mounts })
    this.dead = new Promise((resolve) => {
      this.#die = resolve
    })
  }

  async start(spec: CommandSpec): Promise<JailedProcess> {
    if (this.#destroyed) throw new RequestError('unavailable', 'the sandbox has ended')
    const env = Object.fromEntries(
      Object.entries(spec.env).map(([name, value]) => [name, this.#rewrite(value)]),
    )
    // A login shell would read this machine's profile, not the sandbox's.
    const args = spec.args[0] === '-l' ? spec.args.slice(1) : spec.args
    const { child, stdin, stdout, stderr, exited, announced } = await spawnPiped(this.#pipes, {
      file: '/bin/sh',
      args: ['-c', LAUNCH, 'launch', this.#realPath(spec.cwd), spec.file, ...args.map(this.#rewrite)],
      env: { ...env, TMPDIR: `${this.#rootFolder}/tmp`, E2B_SANDBOX_ID: this.#sandboxId },
      stdin: spec.stdin,
    })
    const pid = Number.parseInt(await announced, 10)
    if (Number.isNaN(pid))
      throw new RequestError('unavailable', 'the sandbox ended before the command could start')
    this.#leaders.set(pid, 'running')
    void exited.then(() => this.#leaders.set(pid, 'ended'))
    return {
      pid,
      stdin,
      stdout,
      stderr,
      exited,
      signal: async (name) =>
        child.exitCode === null && child.signalCode === null ? child.kill(name) : false,
    }
  }

  async freeze(): Promise<void> {
    // Until no one is found that was not there the last time: a process may have forked just before it was stopped.
    for (let before = -1, count = 0; count !== before; ) {
      before = count
      count = await this.#signalAll('SIGSTOP')
    }
  }

  async thaw(): Promise<void> {
    await this.#signalAll('SIGCONT')
  }

  async usage(): Promise<Usage> {
    return sumUsage('/proc', await findProcesses(this.#family()))
  }

  async destroy(): Promise<void> {
    this.#destroyed = true
    for (let round = 0; (await this.#signalAll('SIGKILL')) > 0; round += 1) {
      if (round === MAX_KILL_ROUNDS)
        throw new RequestError('internal', 'processes of the sandbox refuse to die')
      await delay(KILL_ROUND_MS)
    }
    this.#die()
  }

  #family(): Family {
    return { marker: `E2B_SANDBOX_ID=${this.#sandboxId}`, folder: this.#rootFolder, leaders: this.#leaders }
  }

  async #signalAll(signal: NodeJS.Signals): Promise<number> {
    const pids = await findProcesses(this.#family())
    for (const pid of pids) {
      try {
        process.kill(pid, signal)
      } catch (error) {
        if (errnoOf(error) !== 'ESRCH') throw error
      }
    }
    return pids.length
  }

  #realPath(path: string): string {
    if (path === this.#rootFolder || path.startsWith(`${this.#rootFolder}/`)) return path
    for (const [inside, real] of this.#mounts) {
      if (path === inside || path.startsWith(`${inside}/`)) return `${real}${path.slice(inside.length)}`
    }
    return `${this.#rootFolder}${path}`
  }
}
