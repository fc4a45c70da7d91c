import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** Folder of the bundled program; the global setup of the tests fills it. */
export const DISTRIBUTION = fileURLToPath(new URL('../../../dist/persist-result', import.meta.url))
/** The bundled program. */
export const BUNDLE = `${DISTRIBUTION}/persist-result.js`

/** How to run a program once. */
export interface RunOptions {
  /** Added to an environment that holds nothing of the machine's but its PATH. */
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly input?: string | Uint8Array
  /** Leads a process group of its own, so that {@link killGroup} reaches all that it started. */
  readonly group?: boolean
}

/** What a program did. */
export interface RunResult {
  /** Null when a signal ended it. */
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stdoutBytes: Buffer
  readonly stderr: string
  /** Last line of standard output. */
  readonly key: string
}

/** Environment of a worker that has nothing of the test's own. */
export function bareEnvironment(env: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { PATH: process.env.PATH ?? '/usr/bin:/bin', HOME: '/nonexistent', ...env }
}

/** Starts a program; the caller ends it. */
export function start(argv: readonly string[], options: RunOptions = {}): ChildProcess {
  const [file = '', ...args] = argv
  return spawn(file, args, {
    env: bareEnvironment(options.env),
    cwd: options.cwd,
    detached: options.group === true,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
}

/** Kills a program that was started with `group`, and all that it started; one that has ended is fine. */
export function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Waits for a started program and collects what it printed. */
export async function finish(child: ChildProcess): Promise<RunResult> {
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk))
  return await new Promise<RunResult>((done, fail) => {
    child.once('error', fail)
    child.once('close', (status, signal) => {
      const bytes = Buffer.concat(stdout)
      const text = bytes.toString('utf8')
      done({
        status,
        signal,
        stdout: text,
        stdoutBytes: bytes,
        stderr: Buffer.concat(stderr).toString('utf8'),
        key: text.trimEnd().split('\n').at(-1) ?? '',
      })
    })
  })
}

/** Runs a program to its end. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const child = start(argv, options)
  // A program that does not read its input may be gone before it is written.
  child.stdin?.on('error', () => {})
  child.stdin?.end(options.input)
  return await finish(child)
}
