import { mkdir, open, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import type { ResultRecord } from '../../protocol/record.js'
import { spoolFileName } from '../../protocol/spool-layout.js'
import { systemCode } from '../fs-error.js'
import { temporaryPath } from './durable-file.js'
import { isAlive, ownOwner, parseOwner } from './owner.js'
import { taskFolder } from './record-file.js'

/**
 * Folder of markers inside a task's folder, one for each result that no remote tier has. A marker names the process that is
 * delivering. It saves reading every record and sending the same bytes twice, and nothing depends on it for correctness.
 */
const PENDING_FOLDER = '.pending'
/** How often the owner of a marker says that it still is at work. */
const TOUCH_EVERY_MS = 15_000

function markerPath(localDir: string, taskId: string, file: string): string {
  return `${taskFolder(localDir, taskId)}/${PENDING_FOLDER}/${file}`
}

/** One result's marker, held by this process until it is settled or released. */
export class PendingMarker {
  readonly #path: string
  readonly #timer: NodeJS.Timeout
  #settled = false

  constructor(path: string) {
    this.#path = path
    this.#timer = setInterval(() => {
      const now = new Date()
      // A marker that cannot be touched only invites another process to send the same bytes under the same key.
      utimes(this.#path, now, now).catch(() => {})
    }, TOUCH_EVERY_MS)
    this.#timer.unref()
  }

  /** Whether the result needs no further delivery. */
  get settled(): boolean {
    return this.#settled
  }

  /** Delivered: nobody needs to come back to it. */
  async settle(): Promise<void> {
    clearInterval(this.#timer)
    this.#settled = true
    await rm(this.#path, { force: true })
  }

  /** Not delivered: the next process may try. */
  async release(): Promise<void> {
    clearInterval(this.#timer)
    await writeFile(this.#path, '').catch(() => {})
  }
}

/** Marks a result as this process's to deliver, before its record appears. */
export async function markPending(localDir: string, taskId: string, file: string): Promise<PendingMarker> {
  const path = markerPath(localDir, taskId, file)
  const text = JSON.stringify(ownOwner())
  try {
    await writeFile(path, text)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
    await mkdir(`${taskFolder(localDir, taskId)}/${PENDING_FOLDER}`, { recursive: true })
    await writeFile(path, text)
  }
  return new PendingMarker(path)
}

/** Takes over a pending result, or gives `undefined` while a living process is at work on it. */
export async function takePending(
  localDir: string,
  record: ResultRecord,
): Promise<PendingMarker | undefined> {
  const path = markerPath(localDir, record.task_id, spoolFileName(record.timestamp, record.name))
  const mine = JSON.stringify(ownOwner())
  try {
    const [text, { mtimeMs }] = await Promise.all([readFile(path, 'utf8'), stat(path)])
    const owner = parseOwner(text)
    if (owner !== undefined && isAlive(owner, mtimeMs)) return undefined
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
    await mkdir(`${taskFolder(localDir, record.task_id)}/${PENDING_FOLDER}`, { recursive: true })
    try {
      const handle = await open(path, 'wx')
      await handle.writeFile(mine)
      await handle.close()
      return new PendingMarker(path)
    } catch (taken) {
      if (systemCode(taken) === 'EEXIST') return undefined
      throw taken
    }
  }
  const temporary = temporaryPath(taskFolder(localDir, record.task_id))
  await writeFile(temporary, mine)
  await rename(temporary, path)
  return new PendingMarker(path)
}

/** File names of a task's marked results, oldest first. */
export async function listMarked(localDir: string, taskId: string): Promise<string[]> {
  try {
    return (await readdir(`${taskFolder(localDir, taskId)}/${PENDING_FOLDER}`)).sort()
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw error
  }
}

/** Forgets a marker whose result is gone or delivered. */
export async function dropMarker(localDir: string, taskId: string, file: string): Promise<void> {
  await rm(markerPath(localDir, taskId, file), { force: true })
}
