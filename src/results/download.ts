import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { lstat, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import pLimit from 'p-limit'
import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { type ConductorError, isConductorError } from '../errors.js'
import { ARCHIVE_SUFFIX, type KeyParts, splitKey } from '../protocol/key.js'
import { signalSchema } from '../signals.js'
import { choosePlaces, type Folder, type Place } from './download-places.js'
import { type DownloadProgress, ProgressCount } from './download-progress.js'
import {
  DownloadError,
  type DownloadedFile,
  type DownloadReport,
  type FailedDownload,
} from './download-report.js'
import { assertFree, extractArchive, extractLimits } from './extract.js'
import type { Result } from './result.js'

/** Options for downloading all results. */
export interface DownloadOptions extends CallOptions {
  /** How many at once. @default 16 */
  readonly concurrency?: number | undefined
  /** Unpacks archived directories into folders without `.tar.gz`; the archives are not kept. @default false */
  readonly extract?: boolean | undefined
  /** Called as bytes come, at most ten times a second, and after each file. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined
}

/** @internal */
export const downloadOptionsSchema = z.strictObject({
  signal: signalSchema,
  concurrency: z.number().int().min(1).max(256).default(16),
  extract: z.boolean().default(false),
  onProgress: z
    .custom<(progress: DownloadProgress) => void>((value) => typeof value === 'function')
    .optional(),
})

/** What is to be downloaded. */
export interface Wanted {
  readonly found: readonly Result[]
  /** Results that there are, and that nobody can get at: they fail. */
  readonly missing: readonly { readonly key: string; readonly error: ConductorError }[]
}

/** Saves results into a folder, which is made. Rejects with a {@link DownloadError} once all have been tried, when any failed. */
export async function downloadResults(
  { found: results, missing }: Wanted,
  dir: string,
  pathOf: (parts: KeyParts) => string,
  options: DownloadOptions,
): Promise<DownloadReport> {
  const checked = checkOptions('download', downloadOptionsSchema, options)
  const { signal, concurrency, extract, onProgress } = checked
  const places = await choosePlaces(results, dir, { pathOf, extract, signal })
  const progress = new ProgressCount(results, onProgress)
  const limit = pLimit(concurrency)
  const saved: DownloadedFile[] = []
  const skipped: DownloadedFile[] = []
  const failed: FailedDownload[] = missing.map(({ key, error }) => {
    return { key, path: join(dir, pathOf(splitKey(key))), error }
  })
  const outcomes = await Promise.allSettled(
    [...places].map(([result, place]) =>
      limit(async () => {
        signal?.throwIfAborted()
        let { path } = place
        const onBytes = (sizeBytes: number): void => progress.bytes(result, sizeBytes)
        try {
          const unpacks = extract && (await isArchive(result, signal))
          if (unpacks) path = place.unpackedPath
          const fetching = { signal, onBytes, folder: place.folder }
          const isNew = unpacks
            ? await unpack(result, place, fetching)
            : await fetchFile(result, path, fetching)
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
  const place = (key: string): number => order.get(key) ?? results.length
  const inOrder = <T extends { readonly key: string }>(files: T[]): T[] =>
    files.sort((a, b) => place(a.key) - place(b.key))
  const report = { saved: inOrder(saved), skipped: inOrder(skipped), failed: inOrder(failed) }
  if (failed.length > 0) throw new DownloadError(report)
  return report
}

interface FetchOptions extends CallOptions {
  readonly onBytes: (sizeBytes: number) => void
  readonly folder: Folder
}

/** Only what is named like one is asked about. */
async function isArchive(result: Result, signal: AbortSignal | undefined): Promise<boolean> {
  if (!result.isDescribed && !result.name.endsWith(ARCHIVE_SUFFIX)) return false
  return (await result.load({ signal })).archive === 'tar.gz'
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

/** Fetches the archive first, since that can be gone on with, and unpacks it from there. False when that was done before. */
async function unpack(
  result: Result,
  { path: archive, unpackedPath: target }: Place,
  options: FetchOptions,
): Promise<boolean> {
  const { folder, signal } = options
  const { key, sha256 = '' } = result
  const name = basename(target)
  const unpacked = await folder.unpacked()
  // A folder appears only when everything is in it.
  if ((await kindOf(target)) === 'folder' && (await unpacked.isOf(name, sha256))) return false
  await assertFree(
    target,
    `exists, and no download has unpacked ${key} there: move it away to have that there`,
  )
  const hidden = join(dirname(archive), `.${basename(archive)}`)
  await fetchFile(result, hidden, options)
  const source = createReadStream(hidden, { highWaterMark: 1 << 20 })
  try {
    await extractArchive(source, target, {
      ...extractLimits(result.size),
      signal,
      notes: {
        add: (staging) => unpacked.add(name, sha256, staging),
        retract: (staging) => unpacked.retract(name, staging),
      },
    })
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
