import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runTool } from './jail/run-tool.js'
import { errnoOf } from './request-error.js'

/** A server's folder, which no other server uses at the same time. */
export interface DataFolder {
  readonly path: string
  /** Gives the folder up, and removes it when it was made here. */
  release(): Promise<void>
}

const LOCK = 'server.pid'
/** Parts that are one server's own; what an earlier one left of them when it was killed is of no use. */
const TRANSIENT = ['sandboxes', 'shared', 'pipes', 'probe']

/** Takes the folder given, or makes one. Rejects when another server that still runs has it. */
export async function takeDataFolder(given: string | undefined): Promise<DataFolder> {
  if (given === undefined) {
    const path = await realpath(await mkdtemp(join(tmpdir(), 'stu-e2b-')))
    return { path, release: () => removeFolder(path) }
  }
  await mkdir(given, { recursive: true })
  const path = await realpath(given)
  const lock = join(path, LOCK)
  await takeLock(lock)
  await clearTransient(path)
  return {
    path,
    release: async () => {
      await clearTransient(path)
      await rm(lock, { force: true })
    },
  }
}

async function takeLock(lock: string): Promise<void> {
  try {
    await writeFile(lock, String(process.pid), { flag: 'wx' })
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error
    const owner = Number(await readFile(lock, 'utf8'))
    if (isAlive(owner)) throw new Error(`${lock}: another local E2B, process ${owner}, uses this folder`)
    await rm(lock, { force: true })
    await takeLock(lock)
  }
}

function isAlive(pid: number): boolean {
  if (!(pid > 0)) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return errnoOf(error) === 'EPERM'
  }
}

async function clearTransient(path: string): Promise<void> {
  for (const name of TRANSIENT) await removeFolder(join(path, name))
}

async function removeFolder(path: string): Promise<void> {
  await runTool('rm', ['-rf', '--', path])
}
