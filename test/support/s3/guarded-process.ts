import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'

// The guard reads a pipe that only this process holds: when this process ends, however it ends, the pipe does, and
// the guard kills the process group it leads. It does the same when the program ends by itself.
const guard = '("$@" </dev/null; kill -9 0) & cat >/dev/null; kill -9 0'

/** A program that does not outlive this process. */
export interface GuardedProcess {
  /** Rejects when the program ends before it is stopped. */
  readonly failed: Promise<never>
  /** Kills the program and all it started; resolves when they are gone. */
  stop(): Promise<void>
}

/** Removes a folder when stopped, and when this process ends without stopping it. */
export function startFolderGuard(folder: string): GuardedProcess {
  // Programs that are being killed at the same moment may still write, which fails the first attempt.
  const script = 'cat >/dev/null; until rm -rf "$1" 2>/dev/null; do sleep 0.05; done'
  return guardWith(
    spawn('/bin/sh', ['-c', script, 'guard', folder], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    }),
  )
}

/** Starts a program with its output going to a log file. */
export function startGuarded(
  command: readonly string[],
  env: NodeJS.ProcessEnv,
  logPath: string,
): GuardedProcess {
  const log = openSync(logPath, 'a')
  const child = spawn('/bin/sh', ['-c', guard, 'guard', ...command], {
    detached: true,
    env,
    stdio: ['pipe', log, log],
  })
  closeSync(log)
  return guardWith(child)
}

function guardWith(child: ChildProcess): GuardedProcess {
  // Writing to a guard that is gone is not an error: there is nothing left to stop.
  child.stdin?.on('error', () => undefined)
  const exited = once(child, 'exit')
  const failed = exited.then(() => {
    throw new Error(`${child.spawnargs.slice(4).join(' ')} ended`)
  })
  failed.catch(() => undefined)
  return {
    failed,
    stop: async () => {
      child.stdin?.end()
      await exited
    },
  }
}
