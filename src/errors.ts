const brand = Symbol.for('stu-conductor.error')

/**
 * What went wrong, for programs. Messages may change between releases; codes do not.
 *
 * - `INVALID_OPTION`: an option, key, name or record breaks a rule; the message names it and the rule.
 * - `NOT_FOUND`: the store or sandbox says for certain that the thing does not exist.
 * - `EXISTS`: the name is taken and overwriting is not allowed.
 * - `ACCESS_DENIED`: credentials, grant or token do not reach this.
 * - `EXPIRED`: credentials, grant or URL were valid once; fresh ones will work.
 * - `UNAVAILABLE`: the other side could not answer (network, 5xx, rate limit); absent it is not.
 * - `TIMEOUT`: no answer within the time allowed.
 * - `INTEGRITY`: the bytes are not those that were stored.
 * - `TOO_LARGE`: a limit of ours or of the store is exceeded.
 * - `NO_SPACE`: the disk is full.
 * - `PROTOCOL`: the other side answered something its protocol does not allow.
 * - `UNSUPPORTED`: this store or tier cannot do that at all.
 * - `SANDBOX_GONE`: the sandbox no longer exists.
 * - `SANDBOX_PAUSED`: the sandbox sleeps, with all it holds; it can be woken.
 * - `COMMAND_FAILED`: a command in the sandbox that had to succeed did not.
 * - `UNDELIVERED`: going on would destroy results that are stored nowhere else.
 * - `NOT_ENCRYPTED`: the store did not encrypt what it keeps as it is configured to.
 * - `DECRYPTION_KEY_MISSING`: the result is encrypted, and nobody here has the private key that it is for.
 * - `CLOSED`: the conductor or worker was closed or terminated before.
 */
export type ErrorCode =
  | 'INVALID_OPTION'
  | 'NOT_FOUND'
  | 'EXISTS'
  | 'ACCESS_DENIED'
  | 'EXPIRED'
  | 'UNAVAILABLE'
  | 'TIMEOUT'
  | 'INTEGRITY'
  | 'TOO_LARGE'
  | 'NO_SPACE'
  | 'PROTOCOL'
  | 'UNSUPPORTED'
  | 'SANDBOX_GONE'
  | 'SANDBOX_PAUSED'
  | 'COMMAND_FAILED'
  | 'UNDELIVERED'
  | 'NOT_ENCRYPTED'
  | 'DECRYPTION_KEY_MISSING'
  | 'CLOSED'

/** What a {@link ConductorError} carries besides its code and message. */
export interface ConductorErrorOptions {
  /** Whether repeating the same call unchanged can succeed. @default false */
  readonly retryable?: boolean | undefined
  /** The error underneath, unchanged. */
  readonly cause?: unknown
}

/** Base of every error the SDK throws on purpose; `cause` keeps the original. */
export class ConductorError extends Error {
  static {
    // On the prototype, so that `stack` starts with the right name.
    ConductorError.prototype.name = 'ConductorError'
  }
  readonly code: ErrorCode
  /** Whether repeating the same call unchanged can succeed. */
  readonly retryable: boolean

  constructor(code: ErrorCode, message: string, options: ConductorErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.retryable = options.retryable ?? false
  }

  /** @internal */
  get [brand](): true {
    return true
  }
}

/** Like `instanceof`, but holds across duplicate installs of the SDK. */
export function isConductorError(error: unknown): error is ConductorError {
  return error instanceof Error && brand in error
}
