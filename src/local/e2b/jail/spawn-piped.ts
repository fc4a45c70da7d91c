import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { errnoOf, RequestError } from '../request-error.js'
import type { ExitStatus } from './jail.js'
import { closeChildEnds, type Pipe, type Pipes } from './pipes.js'

/** What to start on this machine for a command of a sandbox. */
export interface HostCommand {
  readonly file: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly stdin: boolean
  /** More descriptors for the child, from 4 on; they stay open here. */
  readonly inherit?: readonly number[]
}

/** A started command with its streams, before it has reported its own number. */
export interface PipedProcess {
  readonly child: ChildProcess
  readonly stdin: Writable | undefined
  readonly stdout: Readable
  readonly stderr: Readable
  readonly exited: Promise<ExitStatus>
  /** The line that the command writes to its descriptor 3, empty when it ends without. */
  readonly announced: Promise<string>
}

/** Starts a command in a session of its own, with real pipes as its standard streams. */
export async function spawnPiped(pipes: Pipes, command: HostCommand): Promise<PipedProcess> {
  const opened: Pipe[] = []
  try {
    for (const make of [() => pipes.output(), () => pipes.output()]) opened.push(await make())
    if (command.stdin) opened.push(await pipes.input())
    const [out, err, input] = opened as [Pipe, Pipe, Pipe?]
    const child = spawn(command.file, command.args, {
      env: command.env,
      ...(command.cwd === undefined ? {} : { cwd: command.cwd }),
      detached: true,
      stdio: [input?.childEnd ?? 'ignore', out.childEnd, err.childEnd, 'pipe', ...(command.inherit ?? [])],
    })
    // At once: what nobody has begun to read when the child exits is thrown away.
    const announced = readLine(child.stdio[3] as Readable)
    const exited = exitOf(child)
    await started(child)
    // A command that has gone is reported by its exit; a write it never read is nobody's error.
    input?.stream.on('error', () => {})
    return { child, stdin: input?.stream, stdout: out.stream, stderr: err.stream, exited, announced }
  } catch (error) {
    for (const { stream } of opened) stream.destroy()
    if (errnoOf(error) !== 'E2BIG') throw error
    throw new RequestError('invalid_argument', 'the command and its variables are too long', { cause: error })
  } finally {
    await closeChildEnds(opened)
  }
}

async function started(child: ChildProcess): Promise<void> {
  try {
    await once(child, 'spawn')
  } catch (error) {
    throw new RequestError('invalid_argument', `the command could not be started: ${String(error)}`, {
      cause: error,
    })
  }
}

function exitOf(child: ChildProcess): Promise<ExitStatus> {
  return new Promise((resolve) => {
    child.once('exit', (exitCode, signal) => resolve({ exitCode, signal }))
  })
}

/** Not to the end: whoever stands between us and the command may hold the descriptor as long as that runs. */
async function readLine(stream: Readable): Promise<string> {
  let text = ''
  try {
    for await (const chunk of stream) {
      text += String(chunk)
      if (text.includes('\n')) break
    }
  } catch {
    // Broken off with the command: it said no more than this.
  }
  return text
}
