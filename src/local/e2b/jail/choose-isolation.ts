import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { JailMaker } from './jail.js'
import { NamespaceJails } from './namespaces/namespace-jails.js'
import type { Pipes } from './pipes.js'
import { PlainJails } from './plain/plain-jails.js'

/** What the caller wants: `auto` takes namespaces where a first sandbox can be made with them. */
export type IsolationOption = 'auto' | 'namespaces' | 'plain'

/** Finds a way to make sandboxes on this machine; `namespaces` rejects when they are not to be had. */
export async function chooseIsolation(
  wanted: IsolationOption,
  dataDir: string,
  pipes: Pipes,
  onNotice: (line: string) => void,
): Promise<JailMaker> {
  if (wanted === 'plain') return new PlainJails(pipes)
  try {
    const jails = await NamespaceJails.prepare(join(dataDir, 'shared'), pipes)
    await probe(jails, join(dataDir, 'probe'))
    return jails
  } catch (error) {
    if (wanted === 'namespaces') throw error
    const reason = error instanceof Error ? error.message : String(error)
    onNotice(
      `local E2B: no Linux namespaces here (${reason.split('\n')[0]}); sandboxes are plain processes in private folders and can see this machine's files`,
    )
    return new PlainJails(pipes)
  }
}

async function probe(jails: JailMaker, rootFolder: string): Promise<void> {
  await mkdir(rootFolder, { recursive: true })
  const jail = await jails.make({ sandboxId: 'probe', rootFolder, mounts: [] })
  try {
    const started = await jail.start({
      file: '/bin/bash',
      args: ['-c', 'true'],
      env: { PATH: jails.path },
      cwd: '/workspace',
      user: 'user',
      stdin: false,
    })
    started.stdout.resume()
    started.stderr.resume()
    const { exitCode } = await started.exited
    if (exitCode !== 0) throw new Error(`a first command in a sandbox ended with ${exitCode}`)
  } finally {
    await jail.destroy()
    await rm(rootFolder, { recursive: true, force: true })
    await rm(`${rootFolder}.mounts`, { force: true })
  }
}
