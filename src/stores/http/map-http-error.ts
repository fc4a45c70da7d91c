import { ConductorError, type ErrorCode, isConductorError } from '../../errors.js'

/** What an endpoint answered, as far as its refusals are told apart. */
export interface HttpRefusal {
  readonly status: number
  /** The `code` of a JSON error body; undefined where there is none. */
  readonly code: string | undefined
}

function classify({ status, code }: HttpRefusal): readonly [ErrorCode, boolean] {
  if (code === 'token_expired') return ['EXPIRED', false]
  if (status === 401 || status === 403) return ['ACCESS_DENIED', false]
  if (status === 404 || status === 410) return ['NOT_FOUND', false]
  if (status === 409 || status === 412) return ['EXISTS', false]
  if (status === 413) return ['TOO_LARGE', false]
  if (status === 405 || status === 501) return ['UNSUPPORTED', false]
  if (status === 507) return ['NO_SPACE', false]
  if (status === 408 || status === 425 || status === 429) return ['UNAVAILABLE', true]
  return status >= 500 ? ['UNAVAILABLE', true] : ['PROTOCOL', false]
}

/** Turns a refusal into a typed error. Of the endpoint's own words only its error code is repeated. */
export function mapHttpRefusal(refusal: HttpRefusal, doing: string): ConductorError {
  const [code, retryable] = classify(refusal)
  const said = refusal.code === undefined ? '' : ` (${refusal.code})`
  return new ConductorError(code, `${doing} failed: HTTP ${refusal.status}${said}`, { retryable })
}

/**
 * Classifies whatever `fetch` or the reading of its body threw: the connection failed, and nothing was said about what was asked.
 * Gives back a cancellation's reason unwrapped.
 */
export function mapHttpFailure(error: unknown, doing: string, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) return signal.reason
  if (isConductorError(error) || !(error instanceof Error)) return error
  const { cause } = error
  const system = cause instanceof Error ? (cause as NodeJS.ErrnoException).code : undefined
  // The only failure that the endpoint itself chose; following it could lead anywhere.
  if (cause instanceof Error && cause.message === 'unexpected redirect') {
    return new ConductorError('PROTOCOL', `${doing} failed: the endpoint redirects, which is not followed`, {
      cause: error,
    })
  }
  return new ConductorError('UNAVAILABLE', `${doing} failed: ${system ?? error.message}`, {
    retryable: true,
    cause: error,
  })
}
