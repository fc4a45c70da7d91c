import { S3Error } from '../errors.js'
import type { S3Request } from '../request.js'
import { findCredential, type LocalS3Credential } from './credentials.js'
import { maxSkewMs, parseAmzDate, parseCredential } from './scope.js'
import { type Scope, Signer } from './signer.js'

const maxPresignSeconds = 604_800

/** What signatures are checked against. */
export interface AuthSettings {
  readonly region: string
  readonly credentials: readonly LocalS3Credential[]
  readonly now: () => number
}

/** Who signed a request, and what the signature says about its body. */
export interface Identity {
  readonly credential: LocalS3Credential
  /** `x-amz-content-sha256`: a digest, `UNSIGNED-PAYLOAD`, or one of the streaming forms. */
  readonly payloadHash: string
  /** Where the signatures of signed chunks start. */
  readonly chunks: {
    readonly signer: Signer
    readonly scope: Scope
    readonly date: string
    readonly seed: string
  }
}

/**
 * Checks the signature of a request, in its header or its query.
 * @see https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
 */
export async function authenticate(request: S3Request, settings: AuthSettings): Promise<Identity> {
  const inHeader = request.headers.authorization !== undefined
  const inQuery = request.query.has('X-Amz-Algorithm') || request.query.has('X-Amz-Signature')
  if (inHeader && inQuery) {
    throw new S3Error('InvalidArgument', {
      message:
        'Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified',
    })
  }
  if (inHeader) return authenticateHeader(request, request.headers.authorization ?? '', settings)
  if (inQuery) return authenticateQuery(request, settings)
  if (request.query.has('Signature')) throw unsupportedAlgorithm()
  throw new S3Error('AccessDenied')
}

async function authenticateHeader(
  request: S3Request,
  authorization: string,
  settings: AuthSettings,
): Promise<Identity> {
  const fields = parseAuthorization(authorization)
  const { accessKeyId, scope } = parseCredential(
    fields.credential,
    settings.region,
    'AuthorizationHeaderMalformed',
  )
  const credential = findCredential(
    settings.credentials,
    accessKeyId,
    request.headers['x-amz-security-token'],
    settings.now(),
  )
  const timeMs = requestTime(request)
  if (Math.abs(settings.now() - timeMs) > maxSkewMs) {
    throw new S3Error('RequestTimeTooSkewed', {
      details: {
        RequestTime: new Date(timeMs).toISOString(),
        ServerTime: new Date(settings.now()).toISOString(),
        MaxAllowedSkewMilliseconds: String(maxSkewMs),
      },
    })
  }
  const payloadHash = request.headers['x-amz-content-sha256']
  if (payloadHash === undefined) {
    throw new S3Error('InvalidRequest', {
      message: 'Missing required header for this request: x-amz-content-sha256',
    })
  }
  const signer = new Signer(credential, scope, timeMs)
  checkSignedHeaders(request, fields.signedHeaders)
  await signer.verifyRequest(request, fields.signedHeaders, payloadHash, fields.signature, accessKeyId)
  return { credential, payloadHash, chunks: { signer, scope, date: amzDate(timeMs), seed: fields.signature } }
}

async function authenticateQuery(request: S3Request, settings: AuthSettings): Promise<Identity> {
  const parameter = (name: string): string => {
    const value = request.query.get(name)
    if (value === undefined) {
      throw queryError(
        'Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.',
      )
    }
    return value
  }
  if (parameter('X-Amz-Algorithm') !== 'AWS4-HMAC-SHA256') {
    throw queryError('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256"')
  }
  const { accessKeyId, scope } = parseCredential(
    parameter('X-Amz-Credential'),
    settings.region,
    'AuthorizationQueryParametersError',
  )
  const date = parameter('X-Amz-Date')
  const timeMs = parseAmzDate(date)
  if (timeMs === undefined) {
    throw queryError("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
  }
  if (!date.startsWith(scope.date)) {
    throw queryError(
      `Invalid credential date "${scope.date}". This date is not the same as X-Amz-Date: "${date}".`,
    )
  }
  const expires = parameter('X-Amz-Expires')
  if (!/^\d+$/.test(expires)) throw queryError('X-Amz-Expires should be a number')
  if (Number(expires) > maxPresignSeconds) {
    throw queryError(
      'X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds',
    )
  }
  const signature = parameter('X-Amz-Signature')
  const signedHeaders = parameter('X-Amz-SignedHeaders').split(';')
  const nowMs = settings.now()
  const expiresAtMs = timeMs + Number(expires) * 1000
  if (nowMs > expiresAtMs) {
    throw new S3Error('AccessDenied', {
      message: 'Request has expired',
      details: {
        'X-Amz-Expires': expires,
        Expires: new Date(expiresAtMs).toISOString(),
        ServerTime: new Date(nowMs).toISOString(),
      },
    })
  }
  if (timeMs - nowMs > maxSkewMs) throw new S3Error('AccessDenied', { message: 'Request is not valid yet' })
  const credential = findCredential(
    settings.credentials,
    accessKeyId,
    request.query.get('X-Amz-Security-Token'),
    nowMs,
  )
  checkSignedHeaders(request, signedHeaders)
  const payloadHash = request.headers['x-amz-content-sha256'] ?? 'UNSIGNED-PAYLOAD'
  const signer = new Signer(credential, scope, timeMs)
  await signer.verifyRequest(request, signedHeaders, payloadHash, signature, accessKeyId)
  return { credential, payloadHash, chunks: { signer, scope, date, seed: signature } }
}

function parseAuthorization(text: string) {
  const space = text.indexOf(' ')
  if (space === -1 || text.slice(0, space) !== 'AWS4-HMAC-SHA256') throw unsupportedAlgorithm()
  const fields = new Map(
    text
      .slice(space)
      .split(',')
      .map((field): [string, string] => {
        const equals = field.indexOf('=')
        return [field.slice(0, equals).trim(), field.slice(equals + 1).trim()]
      }),
  )
  const field = (name: string): string => {
    const value = fields.get(name)
    if (!value) {
      throw new S3Error('AuthorizationHeaderMalformed', {
        message: `The authorization header is malformed; the authorization header requires three components: Credential, SignedHeaders, and Signature.`,
      })
    }
    return value
  }
  return {
    credential: field('Credential'),
    signedHeaders: field('SignedHeaders').split(';'),
    signature: field('Signature'),
  }
}

function requestTime(request: S3Request): number {
  const amz = request.headers['x-amz-date']
  const date = request.headers.date
  const timeMs = amz === undefined ? Date.parse(date ?? '') : parseAmzDate(amz)
  if (timeMs === undefined || Number.isNaN(timeMs)) {
    throw new S3Error('AccessDenied', {
      message: 'AWS authentication requires a valid Date or x-amz-date header',
    })
  }
  return timeMs
}

/** S3 takes no `x-amz-*` header, and no `Host`, that the signature does not cover. */
function checkSignedHeaders(request: S3Request, signedHeaders: readonly string[]): void {
  const unsigned = Object.keys(request.headers).filter(
    (name) => (name === 'host' || name.startsWith('x-amz-')) && !signedHeaders.includes(name),
  )
  if (unsigned.length > 0) {
    throw new S3Error('AccessDenied', {
      message: 'There were headers present in the request which were not signed',
      details: { HeadersNotSigned: unsigned.join(', ') },
    })
  }
}

function amzDate(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/[-:]|\.\d+/g, '')
}

function queryError(message: string): S3Error {
  return new S3Error('AuthorizationQueryParametersError', { message })
}

function unsupportedAlgorithm(): S3Error {
  return new S3Error('InvalidRequest', {
    message: 'The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.',
  })
}
