import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

const here = fileURLToPath(new URL('.', import.meta.url))
const repository = fileURLToPath(new URL('../../..', import.meta.url))

/** A process of its own that runs TypeScript of this repository, for tests that kill it. */
export interface ChildScript extends AsyncDisposable {
  /** The next line it prints, parsed as JSON. Rejects when the process ends first. */
  nextMessage(): Promise<unknown>
  /** Sends SIGKILL and waits for the end. */
  kill(): Promise<void>
}

/** Bundles a module whose imports are relative to `test/support/s3/` and starts it; disposing kills it. */
export async function startChildScript(source: string, args: readonly string[] = []): Promise<ChildScript> {
  // Inside the repository, where its packages are found.
  await mkdir(join(repository, '.cache'), { recursive: true })
  const folder = await mkdtemp(join(repository, '.cache/script-'))
  const outfile = join(folder, 'script.mjs')
  let child: ChildProcessByStdio<null, Readable, null>
  try {
    await build({
      stdin: { contents: source, resolveDir: here, loader: 'ts' },
      bundle: true,
      platform: 'node',
      format: 'esm',
      packages: 'external',
      outfile,
      define: { 'import.meta.url': JSON.stringify(pathToFileURL(join(here, 'child-script.ts')).href) },
      logLevel: 'silent',
    })
    child = spawn(process.execPath, [outfile, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    throw error
  }
  const ended = once(child, 'close')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const kill = async () => {
    child.kill('SIGKILL')
    await ended
    await rm(folder, { recursive: true, force: true })
  }
  return {
    nextMessage: async () => {
      const line = await lines.next()
      if (line.done === true) throw new Error('the script ended without another message')
      return JSON.parse(line.value) as unknown
    },
    kill,
    [Symbol.asyncDispose]: kill,
  }
}
