/** Why a request was refused: the code names of the Connect protocol, plus the two that only the REST routes know. */
export type RefusalCode =
  | 'invalid_argument'
  | 'unauthenticated'
  | 'permission_denied'
  | 'not_found'
  | 'already_exists'
  | 'conflict'
  | 'no_space'
  | 'deadline_exceeded'
  | 'unimplemented'
  | 'unavailable'
  | 'internal'

const HTTP_STATUS: Readonly<Record<RefusalCode, number>> = {
  invalid_argument: 400,
  unauthenticated: 401,
  permission_denied: 403,
  not_found: 404,
  already_exists: 409,
  conflict: 409,
  no_space: 507,
  deadline_exceeded: 504,
  unimplemented: 501,
  unavailable: 502,
  internal: 500,
}

/** A request that is answered with an error on purpose; the message goes to the client as it stands. */
export class RequestError extends Error {
  static {
    RequestError.prototype.name = 'RequestError'
  }
  readonly code: RefusalCode

  constructor(code: RefusalCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }

  /** The status for routes that answer with plain HTTP. */
  get status(): number {
    return HTTP_STATUS[this.code]
  }

  /** The code in a Connect answer, which has no words for the REST-only ones. */
  get connectCode(): string {
    if (this.code === 'conflict') return 'failed_precondition'
    return this.code === 'no_space' ? 'resource_exhausted' : this.code
  }
}

const BY_ERRNO: Readonly<Record<string, RefusalCode>> = {
  ENOENT: 'not_found',
  ENOTDIR: 'not_found',
  EEXIST: 'already_exists',
  EISDIR: 'invalid_argument',
  ENOTEMPTY: 'invalid_argument',
  EINVAL: 'invalid_argument',
  ELOOP: 'invalid_argument',
  ENAMETOOLONG: 'invalid_argument',
  EXDEV: 'invalid_argument',
  ENXIO: 'invalid_argument',
  ETXTBSY: 'invalid_argument',
  EBUSY: 'invalid_argument',
  EACCES: 'permission_denied',
  EPERM: 'permission_denied',
  EROFS: 'permission_denied',
  ENOSPC: 'no_space',
  EDQUOT: 'no_space',
}

/** The `code` of a Node system error, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** Turns a failed file operation into an answer that names the path as the client knows it, never the path on this machine. */
export function explainFileError(error: unknown, path: string): unknown {
  const errno = errnoOf(error)
  const code = errno === undefined ? undefined : BY_ERRNO[errno]
  if (errno === undefined || code === undefined) return error
  const message = code === 'not_found' ? `path '${path}' does not exist` : `'${path}': ${errno}`
  return new RequestError(code, message, { cause: error })
}
