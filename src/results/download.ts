import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { lstat, mkdir, readdir, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import pLimit from 'p-limit'
import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { ARCHIVE_SUFFIX } from '../protocol/key.js'
import { extractArchive, extractLimits } from './extract.js'
import { isPartName } from './part-name.js'
import type { Result } from './result.js'

/** Options for downloading all results. */
export interface DownloadOptions extends CallOptions {
  /** How many at once. @default 8 */
  readonly concurrency?: number | undefined
  /** Unpacks archived directories into folders without `.tar.gz`; the archives are not kept. @default false */
  readonly extract?: boolean | undefined
  /** Called as bytes come, at most ten times a second, and after each file. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined
}

/** How far a download has come. */
export interface DownloadProgress {
  /** Saved, there already, or failed. */
  readonly doneFiles: number
  readonly totalFiles: number
  readonly doneBytes: number
  readonly totalBytes: number
}

/** A result that is in its place. */
export interface DownloadedFile {
  readonly key: string
  /** The file, or the folder that its archive was unpacked into. */
  readonly path: string
  readonly sizeBytes: number
}

/** A result that could not be saved. */
export interface FailedDownload {
  readonly key: string
  readonly path: string
  readonly error: ConductorError
}

/** What became of a download. */
export interface DownloadReport {
  /** Fetched now, in part at least. */
  readonly saved: readonly DownloadedFile[]
  /** There before and whole: of the same size and digest, or an unpacked folder. */
  readonly skipped: readonly DownloadedFile[]
  readonly failed: readonly FailedDownload[]
}

/** Some results of a download could not be saved; the report says which, and what is in its place. */
export class DownloadError extends ConductorError {
  static {
    DownloadError.prototype.name = 'DownloadError'
  }
  readonly report: DownloadReport

  constructor(report: DownloadReport) {
    const errors = report.failed.map(({ error }) => error)
    const [code, ...others] = new Set(errors.map((error) => error.code))
    const shown = errors.slice(0, 3).map(({ message }) => message)
    const more = errors.length > shown.length ? ` and ${errors.length - shown.length} more` : ''
    super(
      code !== undefined && others.length === 0 ? code : 'UNAVAILABLE',
      `${errors.length} result(s) could not be downloaded: ${shown.join('; ')}${more}`,
      { retryable: errors.some(({ retryable }) => retryable), cause: new AggregateError(errors) },
    )
    this.report = report
  }
}

/** @internal */
export const downloadOptionsSchema = z.strictObject({
  signal: z.instanceof(AbortSignal).optional(),
  concurrency: z.number().int().min(1).max(256).default(8),
  extract: z.boolean().default(false),
  onProgress: z
    .custom<(progress: DownloadProgress) => void>((value) => typeof value === 'function')
    .optional(),
})

const PROGRESS_EVERY_MS = 100

/** Saves results into a folder, which is made. Rejects with a {@link DownloadError} once all have been tried, when any failed. */
export async function downloadResults(
  results: readonly Result[],
  dir: string,
  pathOf: (result: Result) => string,
  options: DownloadOptions,
): Promise<DownloadReport> {
  const checked = checkOptions('download', downloadOptionsSchema, options)
  const { signal, concurrency, extract, onProgress } = checked
  await mkdir(dir, { recursive: true })
  const progress = new Progress(results, onProgress)
  const limit = pLimit(concurrency)
  const folders = new Map<string, Promise<Folder>>()
  const saved: DownloadedFile[] = []
  const skipped: DownloadedFile[] = []
  const failed: FailedDownload[] = []
  const outcomes = await Promise.allSettled(
    results.map((result) =>
      limit(async () => {
        signal?.throwIfAborted()
        const place = join(dir, pathOf(result))
        let path = place
        const onBytes = (sizeBytes: number): void => progress.bytes(result, sizeBytes)
        try {
          const unpacks = extract && (await isArchive(result, signal))
          if (unpacks && place.endsWith(ARCHIVE_SUFFIX)) path = place.slice(0, -ARCHIVE_SUFFIX.length)
          const folder = await once(folders, dirname(place), makeAndList)
          const fetching = { signal, onBytes, folder }
          const isNew = unpacks
            ? await unpack(result, place, path, fetching)
            : await fetchFile(result, place, fetching)
          ;(isNew ? saved : skipped).push({ key: result.key, path, sizeBytes: result.contentSize })
        } catch (error) {
          if (!isConductorError(error)) throw error
          failed.push({ key: result.key, path, error })
        }
        progress.file(result)
      }),
    ),
  )
  signal?.throwIfAborted()
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  const order = new Map(results.map(({ key }, i) => [key, i]))
  const inOrder = <T extends { readonly key: string }>(files: T[]): T[] =>
    files.sort((a, b) => (order.get(a.key) ?? 0) - (order.get(b.key) ?? 0))
  const report = { saved: inOrder(saved), skipped: inOrder(skipped), failed: inOrder(failed) }
  if (failed.length > 0) throw new DownloadError(report)
  return report
}

interface FetchOptions extends CallOptions {
  readonly onBytes: (sizeBytes: number) => void
  readonly folder: Folder
}

/** What was in a folder when the download came to it. */
interface Folder {
  readonly names: ReadonlySet<string>
  /** Those of unfinished files. */
  readonly parts: readonly string[]
}

/** Only what is named like one is asked about. */
async function isArchive(result: Result, signal: AbortSignal | undefined): Promise<boolean> {
  if (!result.isDescribed && !result.name.endsWith(ARCHIVE_SUFFIX)) return false
  return (await result.load({ signal })).archive === 'tar.gz'
}

async function makeAndList(folder: string): Promise<Folder> {
  await mkdir(folder, { recursive: true })
  const names = await readdir(folder)
  return { names: new Set(names), parts: names.filter(isPartName) }
}

/** What has been made for a key before, or now. */
function once<T>(made: Map<string, T>, key: string, make: (key: string) => T): T {
  const value = made.get(key) ?? make(key)
  made.set(key, value)
  return value
}

/** False when it was there. */
async function fetchFile(
  result: Result,
  path: string,
  { folder, onBytes, signal }: FetchOptions,
): Promise<boolean> {
  if (folder.names.has(basename(path)) && (await isThere(result, path, signal))) return false
  await result.save(path, { siblings: folder.parts, onBytes, signal })
  return true
}

/** Fetches the archive first, since that can be gone on with, and unpacks it from there. False when the folder was there. */
async function unpack(
  result: Result,
  archive: string,
  folder: string,
  options: FetchOptions,
): Promise<boolean> {
  // A folder appears only when everything is in it.
  if ((await kindOf(folder)) === 'folder') return false
  const hidden = join(dirname(archive), `.${basename(archive)}`)
  await fetchFile(result, hidden, options)
  const source = createReadStream(hidden, { highWaterMark: 1 << 20 })
  try {
    await extractArchive(source, folder, extractLimits(result.size))
  } finally {
    source.destroy()
    await rm(hidden, { force: true })
  }
  return true
}

/** Whether a file is there that is just what the result is. */
async function isThere(result: Result, path: string, signal: AbortSignal | undefined): Promise<boolean> {
  const there = await kindOf(path)
  if (typeof there !== 'number') return false
  await result.load({ signal })
  if (result.sha256 === undefined || there !== result.contentSize) return false
  const expected = await digestOf(result, signal)
  if (expected === undefined) return false
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash, { signal })
  return hash.digest('hex') === expected
}

async function digestOf(result: Result, signal: AbortSignal | undefined): Promise<string | undefined> {
  try {
    return await result.contentSha256({ signal })
  } catch (error) {
    signal?.throwIfAborted()
    if (!isConductorError(error)) throw error
    // Whoever saves it will be told what the matter is.
    return undefined
  }
}

/** A file's size; `undefined` for what is neither file nor folder, or not there. */
async function kindOf(path: string): Promise<number | 'folder' | undefined> {
  const stat = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined
    throw error
  })
  if (stat?.isDirectory()) return 'folder'
  return stat?.isFile() ? stat.size : undefined
}

/** Adds up what each file has so far, and tells of it now and then. */
class Progress {
  readonly #tell: ((progress: DownloadProgress) => void) | undefined
  readonly #totalFiles: number
  readonly #totalBytes: number
  readonly #bytes = new Map<string, number>()
  #doneFiles = 0
  #doneBytes = 0
  #toldMs = 0

  constructor(results: readonly Result[], tell: ((progress: DownloadProgress) => void) | undefined) {
    this.#tell = tell
    this.#totalFiles = results.length
    this.#totalBytes = results.reduce((sum, { size }) => sum + size, 0)
  }

  bytes({ key }: Result, sizeBytes: number): void {
    this.#doneBytes += sizeBytes - (this.#bytes.get(key) ?? 0)
    this.#bytes.set(key, sizeBytes)
    if (performance.now() - this.#toldMs >= PROGRESS_EVERY_MS) this.#say()
  }

  file(result: Result): void {
    this.#doneFiles += 1
    this.bytes(result, result.size)
    this.#bytes.delete(result.key)
    this.#say()
  }

  #say(): void {
    this.#toldMs = performance.now()
    this.#tell?.({
      doneFiles: this.#doneFiles,
      totalFiles: this.#totalFiles,
      doneBytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
    })
  }
}
