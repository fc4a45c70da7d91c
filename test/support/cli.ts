import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

/** How a command ended. */
export interface Ended {
  /** -1 when a signal ended it. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs it with its output going where it is told, for example into a pipe that nobody reads from; gives how it ended and what it complained of. */
export async function runCliInto(
  stdout: number | 'unread',
  ...args: string[]
): Promise<Pick<Ended, 'code' | 'stderr'>> {
  const env = { PATH: process.env.PATH, NODE_NO_WARNINGS: '1' }
  const child = spawn(process.execPath, [program, ...args], {
    env,
    stdio: ['ignore', stdout === 'unread' ? 'pipe' : stdout, 'pipe'],
  })
  child.stdout?.destroy()
  const [stderr, [code]] = await Promise.all([text(child.stderr as Readable), once(child, 'close')])
  return { code: (code as number | null) ?? -1, stderr }
}

/** Runs the built `stu-conductor` with nothing in its environment but this. */
export function runCli(env: Readonly<Record<string, string>>, ...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const all = { PATH: process.env.PATH, NODE_NO_WARNINGS: '1', ...env }
    execFile(process.execPath, [program, ...args], { env: all }, (error, stdout, stderr) => {
      const code = typeof error?.code === 'number' ? error.code : error === null ? 0 : -1
      resolve({ code, stdout, stderr })
    })
  })
}
