import { ConductorError, type ErrorCode, isConductorError } from '../../errors.js'

// The table of what is worth repeating: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
const byName: Readonly<Record<string, readonly [ErrorCode, boolean]>> = {
  NoSuchKey: ['NOT_FOUND', false],
  // A bucket that does not exist is a wrong setting; taken for an absent result it would make every result absent.
  NoSuchBucket: ['INVALID_OPTION', false],
  NoSuchUpload: ['NOT_FOUND', false],
  NotFound: ['NOT_FOUND', false],
  // With their status they need no entry; one of many in a bulk deletion has none.
  AccessDenied: ['ACCESS_DENIED', false],
  InternalError: ['UNAVAILABLE', true],
  ExpiredToken: ['EXPIRED', false],
  ExpiredTokenException: ['EXPIRED', false],
  ExpiredRequest: ['EXPIRED', false],
  RequestTimeTooSkewed: ['ACCESS_DENIED', false],
  PreconditionFailed: ['EXISTS', false],
  EntityTooLarge: ['TOO_LARGE', false],
  BadDigest: ['INTEGRITY', true],
  XAmzContentSHA256Mismatch: ['INTEGRITY', true],
  RequestTimeout: ['UNAVAILABLE', true],
  SlowDown: ['UNAVAILABLE', true],
  ConditionalRequestConflict: ['UNAVAILABLE', true],
  CredentialsProviderError: ['ACCESS_DENIED', false],
  TimeoutError: ['TIMEOUT', true],
}

const networkCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'UND_ERR_SOCKET',
])

function byStatus(status: number | undefined): readonly [ErrorCode, boolean] | undefined {
  if (status === undefined) return undefined
  if (status === 404) return ['NOT_FOUND', false]
  if (status === 401 || status === 403) return ['ACCESS_DENIED', false]
  if (status === 412) return ['EXISTS', false]
  if (status === 501) return ['UNSUPPORTED', false]
  if (status === 429 || status >= 500) return ['UNAVAILABLE', true]
  return undefined
}

/**
 * Classifies whatever the AWS SDK threw, by its name and status and never by its wording. Gives back a cancellation's reason unwrapped.
 *
 * @param doing names the call and the place, for example `get s3://bucket/key`
 */
export function mapS3Error(error: unknown, doing: string, signal?: AbortSignal): unknown {
  if (signal?.aborted) return signal.reason
  if (isConductorError(error) || !(error instanceof Error)) return error
  const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode
  const systemCode = (error as { code?: unknown }).code
  const [code, retryable] = byName[error.name] ??
    (typeof systemCode === 'string' && networkCodes.has(systemCode)
      ? (['UNAVAILABLE', true] as const)
      : undefined) ??
    byStatus(status) ?? ['PROTOCOL', false]
  const said = error.message === '' || error.message === 'UnknownError' ? '' : `: ${error.message}`
  const hint = error.name === 'CredentialsProviderError' ? ' (no AWS credentials were found)' : ''
  return new ConductorError(code, `${doing} failed: ${error.name}${said}${hint}`, { retryable, cause: error })
}
