import type { CommandOptions, CommandOutcome, RemoteSandbox } from './remote-sandbox.js'
import { NO_PROFILE } from './run-bounded.js'

/**
 * Runs a script of our own to its end, whatever the exit code: without a worker's login files, which may print anything, sleep
 * or exit, and in a folder that no worker removed.
 */
export function runPlainly(
  sandbox: RemoteSandbox,
  script: string,
  options: Omit<CommandOptions, 'cwd' | 'envs'> = {},
): Promise<CommandOutcome> {
  return sandbox.run(script, { ...options, cwd: '/', envs: NO_PROFILE })
}
