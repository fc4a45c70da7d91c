import type { Result } from './result.js'

/** How far a download has come. */
export interface DownloadProgress {
  /** Saved, there already, or failed. */
  readonly doneFiles: number
  readonly totalFiles: number
  readonly doneBytes: number
  readonly totalBytes: number
}

const PROGRESS_EVERY_MS = 100

/** Adds up what each file has so far, and tells of it now and then. */
export class ProgressCount {
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
