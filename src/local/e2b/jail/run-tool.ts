import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Runs one of the system's own tools to its end and resolves what it printed; rejects with its stderr when it fails. */
export async function runTool(file: string, args: readonly string[], timeoutMs = 30_000): Promise<string> {
  const { stdout } = await run(file, args, {
    encoding: 'utf8',
    timeout: timeoutMs,
    maxBuffer: 16 * 1024 * 1024,
  })
  return stdout
}
