import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { type RunOptions, type RunResult, run } from './program.js'
import { type Cleanup, scratch } from './scratch.js'
import type { Target } from './targets.js'

let tasks = 0

/** A worker with a spool and a working folder of its own. */
export interface Worker {
  readonly taskId: string
  readonly folder: string
  readonly localDir: string
  readonly env: Readonly<Record<string, string>>
  /** Runs persist-result in the worker's folder. */
  persist(args: readonly string[], options?: RunOptions): Promise<RunResult>
  /** Records in the spool, straight from its files, in the order of their names. */
  records(): Promise<ResultRecord[]>
  /** A result's bytes, straight from the spool; only for names that are short enough to be file names. */
  spooled(key: string): Promise<Buffer>
}

/** Makes a worker for one test. */
export async function makeWorker(
  test: Cleanup,
  implementation: readonly string[],
  target: Target,
  extra: Readonly<Record<string, string>> = {},
): Promise<Worker> {
  const folder = await scratch(test)
  const localDir = join(folder, 'spool')
  const taskId = `task-${process.pid}-${++tasks}`
  const env = {
    WORKER_ID: taskId,
    WORKER_RESULTS_LOCAL_DIR: localDir,
    ...(await target.env(taskId)),
    ...extra,
  }
  return {
    taskId,
    folder,
    localDir,
    env,
    persist: (args, options = {}) =>
      run([...implementation, ...args], { cwd: folder, ...options, env: { ...env, ...options.env } }),
    records: async () => {
      const names = (await readdir(join(localDir, taskId)))
        .filter((name) => name.endsWith('.meta.json'))
        .sort()
      const texts = await Promise.all(names.map((name) => readFile(join(localDir, taskId, name), 'utf8')))
      return texts.map((text) => JSON.parse(text) as ResultRecord)
    },
    spooled: (key) => readFile(join(localDir, key)),
  }
}
