import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, utimes, writeFileSync } from 'node:fs'
import { createText, removeFile } from '../../files/disk.js'
import { temporaryPath } from '../../files/durable-file.js'
import { isAlive, ownOwner, parseOwner } from '../../files/owner.js'
import { systemCode } from '../../files/system-code.js'
import type { ResultRecord } from '../../protocol/record.js'
import { SPOOL_FOLDERS, spoolFileName } from '../../protocol/spool-layout.js'
import { taskFolder } from './record-file.js'

/** How often the owner of a marker says that it still is at work. */
const TOUCH_EVERY_MS = 15_000

function markerPath(localDir: string, taskId: string, file: string): string {
  return `${taskFolder(localDir, taskId)}/${SPOOL_FOLDERS.pending}/${file}`
}

/**
 * One result's marker, held by this process until it is settled or released. It names the process that is delivering, which
 * saves reading every record and sending the same bytes twice; nothing depends on it for correctness.
 */
export class PendingMarker {
  readonly #path: string
  readonly #timer: NodeJS.Timeout
  #settled = false

  constructor(path: string) {
    this.#path = path
    this.#timer = setInterval(() => {
      const now = new Date()
      // A marker that cannot be touched only invites another process to send the same bytes under the same key.
      utimes(this.#path, now, now, () => {})
    }, TOUCH_EVERY_MS)
    this.#timer.unref()
  }

  /** Whether the result needs no further delivery. */
  get settled(): boolean {
    return this.#settled
  }

  /** Delivered: nobody needs to come back to it. */
  settle(): void {
    clearInterval(this.#timer)
    this.#settled = true
    removeFile(this.#path)
  }

  /** Not delivered: the next process may try. */
  release(): void {
    clearInterval(this.#timer)
    try {
      writeFileSync(this.#path, '')
    } catch {
      // It then names this process, and counts for nothing as soon as this process has ended.
    }
  }
}

/** Marks a result as this process's to deliver, before its record appears. */
export function markPending(localDir: string, taskId: string, file: string): PendingMarker {
  const path = markerPath(localDir, taskId, file)
  const text = JSON.stringify(ownOwner())
  try {
    writeFileSync(path, text)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
    mkdirSync(`${taskFolder(localDir, taskId)}/${SPOOL_FOLDERS.pending}`, { recursive: true })
    writeFileSync(path, text)
  }
  return new PendingMarker(path)
}

/** Takes over a pending result, or gives `undefined` while a living process is at work on it. */
export function takePending(localDir: string, record: ResultRecord): PendingMarker | undefined {
  const path = markerPath(localDir, record.task_id, spoolFileName(record.timestamp, record.name))
  const mine = JSON.stringify(ownOwner())
  try {
    const owner = parseOwner(readFileSync(path, 'utf8'))
    if (owner !== undefined && isAlive(owner, statSync(path).mtimeMs)) return undefined
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
    return placePending(localDir, record.task_id, path, mine) ? new PendingMarker(path) : undefined
  }
  const temporary = temporaryPath(taskFolder(localDir, record.task_id))
  try {
    writeFileSync(temporary, mine)
    renameSync(temporary, path)
  } catch (error) {
    assertNoRoom(error)
    removeFile(temporary)
  }
  return new PendingMarker(path)
}

/** Marks what has no marker, as where a delivery could not be noted in the record; false where somebody else was faster. */
function placePending(localDir: string, taskId: string, path: string, text: string): boolean {
  try {
    mkdirSync(`${taskFolder(localDir, taskId)}/${SPOOL_FOLDERS.pending}`, { recursive: true })
    return createText(path, text)
  } catch (error) {
    assertNoRoom(error)
    return true
  }
}

/** A full disk must not keep what is on it from being delivered; at worst another process sends the same bytes as well. */
function assertNoRoom(error: unknown): void {
  if (!['ENOSPC', 'EDQUOT', 'EROFS'].includes(systemCode(error) ?? '')) throw error
}

/** File names of a task's marked results, oldest first. */
export function listMarked(localDir: string, taskId: string): string[] {
  try {
    return readdirSync(`${taskFolder(localDir, taskId)}/${SPOOL_FOLDERS.pending}`).sort()
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw error
  }
}

/** Forgets a marker whose result is gone or delivered. */
export function dropMarker(localDir: string, taskId: string, file: string): void {
  removeFile(markerPath(localDir, taskId, file))
}
