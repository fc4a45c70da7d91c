import { ConductorError } from '../errors.js'

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
  /** There before and whole: of the same size and digest, or a folder that a download had unpacked it to. */
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
