import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { build } from 'esbuild'

/** A results endpoint in a process of its own. */
export interface ServerProcess extends AsyncDisposable {
  readonly url: string
  readonly pid: number
  /** Kills it as a crash would, and waits until it is gone. */
  kill(): Promise<void>
}

/** Bundles the program of the server, so that plain Node runs it. */
export async function buildServer(folder: string): Promise<string> {
  const outfile = join(folder, 'server.cjs')
  await build({
    entryPoints: [join(import.meta.dirname, 'server-main.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    logLevel: 'error',
  })
  return outfile
}

/** Starts the program over a folder; disposing kills it. */
export async function startServer(program: string, folder: string): Promise<ServerProcess> {
  const child = spawn(process.execPath, [program, folder], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const [url] = (await Promise.race([
    once(createInterface(child.stdout), 'line'),
    exited.then(([code]) => {
      throw new Error(`the server ended with ${code}`)
    }),
  ])) as [string]
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exited
  }
  return { url, pid: child.pid ?? 0, kill, [Symbol.asyncDispose]: kill }
}
