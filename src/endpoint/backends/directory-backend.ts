import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import { makeFolder, syncFolder } from '../../files/durable-file.js'
import { KeyLock } from '../../key-lock.js'
import { compareKeys, parseKey, RECORD_SUFFIX, taskIdProblem } from '../../protocol/key.js'
import { parseRecord } from '../../protocol/parse.js'
import type { ResultRecord } from '../../protocol/record.js'
import { spoolFileName } from '../../protocol/spool-layout.js'
import { DirectoryFiles } from '../../stores/directory-files.js'
import { takeBytes } from '../take-bytes.js'
import { collectPage } from './collect-page.js'
import type {
  BodyRange,
  Commit,
  EndpointBackend,
  KeptTask,
  PageOptions,
  RecordPage,
  TaskPage,
  TaskPageOptions,
  TaskUsage,
} from './endpoint-backend.js'
import { digestFile, isFolder, namesIn, sizeOf, statIfThere, takeName } from './files.js'
import { removeOrphans } from './remove-orphans.js'
import { type StagedBody, StagingFolder } from './staging-folder.js'

/** Folder inside the directory for uploads; no task id starts with a dot. */
const STAGING = '.incoming'
/** After this long, a body without a record is that of a process that died in between. */
const ABANDONED_MS = 60_000
/** File names that may stand for a longer name; see `spoolFileName`. */
const shortenedPattern = /^\d{8}-\d{6}-~[0-9a-f]{64}$/

/** Options for {@link DirectoryBackend.open}. */
export interface DirectoryBackendOptions {
  /** The clock, in milliseconds, that what a crash left is held against. @default Date.now */
  readonly now?: (() => number) | undefined
}

/** Keeps results in a folder of this machine, in the layout of the spool, so that every spool reader reads it. */
export class DirectoryBackend implements EndpointBackend {
  readonly staging: StagingFolder
  readonly maxFileBytes = Number.MAX_SAFE_INTEGER
  readonly #folder: string
  readonly #files: DirectoryFiles
  readonly #lock = new KeyLock()

  readonly #now: () => number

  private constructor(folder: string, staging: StagingFolder, now: () => number) {
    this.#folder = folder
    this.#now = now
    this.#files = new DirectoryFiles(folder)
    this.staging = staging
  }

  /** Makes the folder where there is none and removes what a crash left unfinished. Several processes may share it. */
  static async open(folder: string, options: DirectoryBackendOptions = {}): Promise<DirectoryBackend> {
    const { now = Date.now } = options
    const staging = await StagingFolder.open(join(folder, STAGING), { durable: true })
    if (staging.alone) await removeOrphans(folder, now())
    return new DirectoryBackend(folder, staging, now)
  }

  async commit(body: StagedBody, record: ResultRecord): Promise<Commit> {
    return this.#lock.run(record.key, async () => {
      const { task_id: taskId, timestamp, name } = record
      const folder = join(this.#folder, taskId)
      const path = join(folder, spoolFileName(timestamp, name))
      await makeFolder(folder)
      if (!(await isFolder(folder))) throw new ConductorError('ACCESS_DENIED', `${folder} is a link`)
      const created = (await this.read(record.key)) === undefined && (await this.#publish(body, record, path))
      const kept = created ? record : await this.read(record.key)
      if (kept === undefined) throw new ConductorError('INTEGRITY', `${path}${RECORD_SUFFIX} is malformed`)
      if (kept.sha256 !== record.sha256) return { outcome: 'conflict', record: kept }
      // Somebody may have taken the bytes away and left the record.
      if (!created && (await sizeOf(path)) !== kept.size) await rename(body.path, path)
      // What is there may be another process's work, not yet safe from a crash of the machine.
      await syncFolder(folder)
      return { outcome: created ? 'created' : 'unchanged', record: kept }
    })
  }

  async list(taskId: string, { after, limit, maxBytes, signal }: PageOptions): Promise<RecordPage> {
    const entries = await this.#entries(taskId)
    const wanted = entries.filter(({ key }) => compareKeys(key, after) > 0)
    wanted.sort((a, b) => compareKeys(a.key, b.key))
    const bounds = { complete: true, limit, maxBytes, signal }
    return collectPage(wanted, bounds, ({ fileName }) => this.#readOwn(taskId, fileName))
  }

  async read(key: string, { signal }: CallOptions = {}): Promise<ResultRecord | undefined> {
    signal?.throwIfAborted()
    const parts = parseKey(key)
    if (parts === undefined) return undefined
    const record = await this.#readOwn(parts.taskId, spoolFileName(parts.timestamp, parts.name))
    return record?.key === key ? record : undefined
  }

  async open(key: string, { start, end, signal }: BodyRange): Promise<ReadableStream<Uint8Array>> {
    const { taskId, timestamp, name } = parseKey(key) ?? { taskId: '.', timestamp: '', name: '' }
    const body = await this.#files.open(taskId, spoolFileName(timestamp, name), { offset: start, signal })
    return takeBytes(body, end - start)
  }

  async delete(key: string): Promise<boolean> {
    return this.#lock.run(key, async () => {
      const record = await this.read(key)
      if (record === undefined) return false
      const folder = join(this.#folder, record.task_id)
      const path = join(folder, spoolFileName(record.timestamp, record.name))
      // The record first: a body without one is no result, the other way round it would be a broken one.
      await rm(`${path}${RECORD_SUFFIX}`)
      await syncFolder(folder)
      await rm(path, { force: true })
      return true
    })
  }

  async listTasks({ after, limit, signal }: TaskPageOptions): Promise<TaskPage> {
    const names = await namesIn(this.#folder)
    const taskIds = names.filter((name) => taskIdProblem(name) === undefined && name > after).sort()
    const tasks: KeptTask[] = []
    for (const [i, taskId] of taskIds.entries()) {
      const task = await this.#measure(taskId, { signal })
      if (task.count > 0) tasks.push(task)
      // Those of which everything was deleted leave their folders, and whoever asks gives up on pages without end that are empty.
      const isFull = i + 1 >= limit && tasks.length > 0
      if (isFull) return { tasks, next: i + 1 < taskIds.length ? taskId : undefined }
    }
    return { tasks, next: undefined }
  }

  async usage(taskId: string, options: CallOptions = {}): Promise<TaskUsage> {
    const { count, sizeBytes } = await this.#measure(taskId, options)
    return { count, sizeBytes }
  }

  async #measure(taskId: string, { signal }: CallOptions): Promise<KeptTask> {
    let count = 0
    let sizeBytes = 0
    let newestMs = 0
    for (const { fileName } of await this.#entries(taskId)) {
      signal?.throwIfAborted()
      const file = await statIfThere(join(this.#folder, taskId, fileName))
      if (file === undefined) continue
      count++
      sizeBytes += file.size
      newestMs = Math.max(newestMs, file.mtimeMs)
    }
    return { taskId, updatedAt: new Date(newestMs), count, sizeBytes }
  }

  async close(): Promise<void> {
    await this.staging.close()
  }

  /** Gives body and record their names, neither ever replacing one that counts; false when another's record was there first. */
  async #publish(body: StagedBody, record: ResultRecord, path: string): Promise<boolean> {
    const recordFile = await this.staging.receive([Buffer.from(`${JSON.stringify(record)}\n`)])
    try {
      if (!(await takeName(body.path, path)) && !(await isHeldBy(path, body))) {
        await this.#replaceAbandoned(body, path)
      }
      return await takeName(recordFile.path, `${path}${RECORD_SUFFIX}`)
    } finally {
      await this.staging.discard(recordFile)
    }
  }

  /** Puts a body in place of one that a crash left without its record. */
  async #replaceAbandoned(body: StagedBody, path: string): Promise<void> {
    if ((await sizeOf(`${path}${RECORD_SUFFIX}`)) !== undefined) return
    const there = await statIfThere(path)
    if (there?.isFile() === true && this.#now() - there.ctimeMs < ABANDONED_MS) {
      throw new ConductorError('UNAVAILABLE', `${path} is being written by another process`, {
        retryable: true,
      })
    }
    await rename(body.path, path)
  }

  /** Results that a task has by its file names; a name too long for the file system is told by its record. */
  async #entries(taskId: string): Promise<{ key: string; fileName: string }[]> {
    const folder = join(this.#folder, taskId)
    const names = (await isFolder(folder)) ? await namesIn(folder) : []
    const entries: { key: string; fileName: string }[] = []
    for (const name of names) {
      if (!name.endsWith(RECORD_SUFFIX) || name.startsWith('.')) continue
      const fileName = name.slice(0, -RECORD_SUFFIX.length)
      const key = shortenedPattern.test(fileName)
        ? (await this.#readOwn(taskId, fileName))?.key
        : `${taskId}/${fileName}`
      if (key !== undefined && parseKey(key) !== undefined) entries.push({ key, fileName })
    }
    return entries
  }

  /** The record beside a file, provided that it speaks of that file. */
  async #readOwn(taskId: string, fileName: string): Promise<ResultRecord | undefined> {
    const text = await this.#files.readRecord(taskId, fileName)
    if (text === undefined) return undefined
    try {
      const record = parseRecord(text)
      const itsOwn = record.task_id === taskId && spoolFileName(record.timestamp, record.name) === fileName
      return itsOwn ? record : undefined
    } catch (error) {
      if (isConductorError(error)) return undefined
      throw error
    }
  }
}

/** Whether a file has the bytes of a body. Of a link nobody knows whose they are, and a pipe would never end. */
async function isHeldBy(path: string, { sha256 }: StagedBody): Promise<boolean> {
  return (await statIfThere(path))?.isFile() === true && (await digestFile(path)) === sha256
}
