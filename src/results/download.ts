import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import pLimit from 'p-limit'
import { z } from 'zod'
import type { CallOptions } from '../call-options.js'
import { checkOptions } from '../check-options.js'
import { spoolFileName } from '../protocol/spool-layout.js'
import type { Result } from './result.js'

/** Options for downloading all results. */
export interface DownloadOptions extends CallOptions {
  /** How many at once. @default 8 */
  readonly concurrency?: number | undefined
  /** Called after each file. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined
}

/** How far a download has come. */
export interface DownloadProgress {
  readonly doneFiles: number
  readonly totalFiles: number
  readonly doneBytes: number
  readonly totalBytes: number
}

/** A result that was saved. */
export interface DownloadedFile {
  readonly key: string
  readonly path: string
  readonly sizeBytes: number
}

const downloadOptionsSchema = z.strictObject({
  signal: z.instanceof(AbortSignal).optional(),
  concurrency: z.number().int().min(1).max(256).default(8),
  onProgress: z
    .custom<(progress: DownloadProgress) => void>((value) => typeof value === 'function')
    .optional(),
})

/** Saves results into a folder, which is made. The first failure stops the rest and is thrown once they have stopped. */
export async function downloadResults(
  results: readonly Result[],
  dir: string,
  options: DownloadOptions,
): Promise<readonly DownloadedFile[]> {
  const { signal, concurrency, onProgress } = checkOptions('download', downloadOptionsSchema, options)
  await mkdir(dir, { recursive: true })
  const failed = new AbortController()
  const stop = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal])
  const totalBytes = results.reduce((sum, { size }) => sum + size, 0)
  let doneBytes = 0
  let doneFiles = 0
  const limit = pLimit(concurrency)
  const saved = await Promise.allSettled(
    results.map((result) =>
      limit(async (): Promise<DownloadedFile> => {
        stop.throwIfAborted()
        const path = join(dir, spoolFileName(result.timestamp, result.name))
        try {
          await result.save(path, { signal: stop })
        } catch (error) {
          failed.abort(error)
          throw error
        }
        doneFiles += 1
        doneBytes += result.size
        onProgress?.({ doneFiles, totalFiles: results.length, doneBytes, totalBytes })
        return { key: result.key, path, sizeBytes: result.size }
      }),
    ),
  )
  stop.throwIfAborted()
  return saved.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
}
