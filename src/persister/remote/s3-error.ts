import { ConductorError, type ErrorCode } from '../../errors.js'
import type { Answer } from './exchange.js'
import { askForWait } from './retry.js'

const entities: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/** Text of the first element of a name in an S3 answer, or `undefined`; those answers are flat and have no attributes there. */
export function xmlText(xml: string, element: string): string | undefined {
  const match = new RegExp(`<${element}(?:\\s[^>]*)?>([^<]*)</${element}>`).exec(xml)
  return match?.[1]?.replace(/&(amp|lt|gt|quot|apos);/g, (_, name: string) => entities[name] ?? '')
}

/** S3's own codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html */
const byCode: Readonly<Record<string, readonly [ErrorCode, boolean]>> = {
  AccessDenied: ['ACCESS_DENIED', false],
  SignatureDoesNotMatch: ['ACCESS_DENIED', false],
  InvalidAccessKeyId: ['ACCESS_DENIED', false],
  InvalidToken: ['ACCESS_DENIED', false],
  ExpiredToken: ['EXPIRED', false],
  ExpiredRequest: ['EXPIRED', false],
  TokenRefreshRequired: ['EXPIRED', false],
  RequestTimeTooSkewed: ['ACCESS_DENIED', false],
  NoSuchBucket: ['NOT_FOUND', false],
  NoSuchKey: ['NOT_FOUND', false],
  NoSuchUpload: ['NOT_FOUND', false],
  PreconditionFailed: ['EXISTS', false],
  ConditionalRequestConflict: ['UNAVAILABLE', true],
  OperationAborted: ['UNAVAILABLE', true],
  BadDigest: ['INTEGRITY', true],
  XAmzContentSHA256Mismatch: ['INTEGRITY', true],
  XAmzContentChecksumMismatch: ['INTEGRITY', true],
  IncompleteBody: ['UNAVAILABLE', true],
  EntityTooLarge: ['TOO_LARGE', false],
  NotImplemented: ['UNSUPPORTED', false],
  RequestTimeout: ['UNAVAILABLE', true],
  InternalError: ['UNAVAILABLE', true],
  ServiceUnavailable: ['UNAVAILABLE', true],
  SlowDown: ['UNAVAILABLE', true],
  Throttling: ['UNAVAILABLE', true],
  ThrottlingException: ['UNAVAILABLE', true],
  RequestLimitExceeded: ['UNAVAILABLE', true],
  QuotaExceeded: ['NO_SPACE', false],
}

function byStatus(status: number): readonly [ErrorCode, boolean] {
  if (status === 401 || status === 403) return ['ACCESS_DENIED', false]
  if (status === 404) return ['NOT_FOUND', false]
  if (status === 408 || status === 429 || (status >= 500 && status !== 501)) return ['UNAVAILABLE', true]
  if (status === 409) return ['UNAVAILABLE', true]
  if (status === 412) return ['EXISTS', false]
  if (status === 413) return ['TOO_LARGE', false]
  if (status === 501) return ['UNSUPPORTED', false]
  return ['PROTOCOL', false]
}

/** S3's code for an answer that is no success, or `HTTP {status}` where it gave none. */
export function s3Code({ status, text }: Answer): string {
  return xmlText(text, 'Code') ?? `HTTP ${status}`
}

/** Turns an S3 answer that is no success into a typed error; the message carries S3's own code and words. */
export function s3Error(answer: Answer, doing: string): ConductorError {
  const code = s3Code(answer)
  const message = xmlText(answer.text, 'Message')
  const [ours, retryable] = byCode[code] ?? byStatus(answer.status)
  const says = message === undefined || message === '' ? code : `${code}: ${message}`
  // RGW and AWS both answer an expired policy or URL with AccessDenied; only the words tell.
  const expired = ours === 'ACCESS_DENIED' && message !== undefined && /\bexpired\b/i.test(message)
  const bucketRegion = answer.headers['x-amz-bucket-region']
  const hint =
    answer.status === 301 || code === 'AuthorizationHeaderMalformed'
      ? ` (the bucket is in ${typeof bucketRegion === 'string' ? bucketRegion : (xmlText(answer.text, 'Region') ?? 'another region')})`
      : ''
  const line = `${says}${hint} (${doing})`.replace(/\s+/g, ' ').slice(0, 500)
  return askForWait(
    new ConductorError(expired ? 'EXPIRED' : ours, line, { retryable: retryable && !expired }),
    answer.headers['retry-after'],
  )
}
