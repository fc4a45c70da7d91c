import { isConductorError } from '../errors.js'

/** What went wrong, for programs: the `code` of the endpoint's JSON errors. Messages may change, codes do not. */
export type ProblemCode =
  | 'malformed_request'
  | 'malformed_form'
  | 'incomplete_body'
  | 'invalid_query'
  | 'unauthenticated'
  | 'token_expired'
  | 'forbidden'
  | 'not_found'
  | 'method_not_allowed'
  | 'stalled'
  | 'conflict'
  | 'too_large'
  | 'unsupported_media_type'
  | 'precondition_failed'
  | 'range_not_satisfiable'
  | 'missing_field'
  | 'invalid_field'
  | 'digest_mismatch'
  | 'internal'
  | 'unavailable'
  | 'task_quota_exceeded'
  | 'no_space'

/** A refusal that the client is told of as it is; never holds anything of the server's own. */
export class HttpError extends Error {
  static {
    HttpError.prototype.name = 'HttpError'
  }
  readonly status: number
  readonly code: ProblemCode
  readonly headers: Readonly<Record<string, string>>

  constructor(
    status: number,
    code: ProblemCode,
    message: string,
    options: { readonly headers?: Readonly<Record<string, string>>; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.status = status
    this.code = code
    this.headers = options.headers ?? {}
  }
}

const RETRY_SOON = { 'retry-after': '2' }

/** Says what a client may know of any failure; what the storage said stays on the server. */
export function toHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error
  if (isNoSpace(error)) {
    return new HttpError(507, 'no_space', 'the storage is full', { cause: error })
  }
  if (isConductorError(error)) {
    if (error.code === 'NOT_FOUND') return new HttpError(404, 'not_found', 'no such result', { cause: error })
    if (error.code === 'EXISTS') {
      return new HttpError(409, 'conflict', 'this key holds another result already', { cause: error })
    }
    if (error.code === 'TOO_LARGE') {
      return new HttpError(413, 'too_large', 'larger than the storage takes', { cause: error })
    }
    if (error.retryable || error.code === 'UNAVAILABLE' || error.code === 'TIMEOUT') {
      const options = { cause: error, headers: RETRY_SOON }
      return new HttpError(503, 'unavailable', 'the storage does not answer; try again', options)
    }
  }
  return new HttpError(500, 'internal', 'the endpoint failed', { cause: error })
}

function isNoSpace(error: unknown): boolean {
  if (isConductorError(error)) return error.code === 'NO_SPACE'
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  return code === 'ENOSPC' || code === 'EDQUOT'
}
