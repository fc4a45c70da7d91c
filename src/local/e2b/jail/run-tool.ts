import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** With the system folders at the end: not every user has them in PATH, and pivot_root(8) is there. */
const PATH = [process.env.PATH ?? '/usr/local/bin:/usr/bin:/bin', '/usr/sbin', '/sbin'].join(':')

/** For the system's own tools, with their messages in English. */
export const TOOL_ENV: Readonly<Record<string, string>> = { PATH, LC_ALL: 'C' }

/** Runs one of the system's own tools to its end and resolves what it printed; rejects with its stderr when it fails. */
export async function runTool(file: string, args: readonly string[], timeoutMs = 30_000): Promise<string> {
  const { stdout } = await run(file, args, {
    encoding: 'utf8',
    env: { ...process.env, ...TOOL_ENV },
    timeout: timeoutMs,
    maxBuffer: 16 * 1024 * 1024,
  })
  return stdout
}
