import { S3Error } from '../errors.js'
import type { AuthSettings, Identity } from './authenticate.js'
import { findCredential } from './credentials.js'
import { maxSkewMs, parseAmzDate, parseCredential } from './scope.js'
import { Signer, sameSignature } from './signer.js'

/** The fields of an upload form before its file, by lower-case name. */
export type FormFields = Readonly<Record<string, string>>

/** How large the file of a form may be, in bytes, both ends included. */
export interface SizeRange {
  readonly min: number
  readonly max: number
}

type Condition =
  | {
      readonly kind: 'eq' | 'starts-with'
      readonly field: string
      readonly value: string
      readonly source: unknown
    }
  | { readonly kind: 'size'; readonly range: SizeRange }

/** Fields that need no condition. */
const undeclared = ['x-amz-signature', 'policy', 'file']

/**
 * Checks the signature of an upload form.
 * @see https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html
 */
export async function authenticateForm(fields: FormFields, settings: AuthSettings): Promise<Identity> {
  const policy = fields.policy
  if (policy === undefined) throw new S3Error('AccessDenied')
  const field = (name: string): string => {
    const value = fields[name]
    if (value === undefined) {
      throw new S3Error('InvalidArgument', {
        message: `Bucket POST must contain a field named '${name}'. If it is specified, please check the order of the fields.`,
        details: { ArgumentName: name },
      })
    }
    return value
  }
  if (field('x-amz-algorithm') !== 'AWS4-HMAC-SHA256') {
    throw new S3Error('InvalidArgument', {
      message: 'X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"',
      details: { ArgumentName: 'x-amz-algorithm' },
    })
  }
  const { accessKeyId, scope } = parseCredential(
    field('x-amz-credential'),
    settings.region,
    'AuthorizationQueryParametersError',
  )
  const date = field('x-amz-date')
  const timeMs = parseAmzDate(date)
  if (timeMs === undefined || !date.startsWith(scope.date)) {
    throw new S3Error('AccessDenied', { message: 'Invalid according to Policy: Invalid x-amz-date.' })
  }
  if (timeMs - settings.now() > maxSkewMs) {
    throw new S3Error('AccessDenied', { message: 'Request is not valid yet' })
  }
  const credential = findCredential(
    settings.credentials,
    accessKeyId,
    fields['x-amz-security-token'],
    settings.now(),
  )
  const signer = new Signer(credential, scope, timeMs)
  const seed = field('x-amz-signature')
  if (!sameSignature(await signer.signText(policy), seed)) {
    throw new S3Error('SignatureDoesNotMatch', {
      details: { AWSAccessKeyId: accessKeyId, StringToSign: policy, SignatureProvided: seed },
    })
  }
  return { credential, payloadHash: 'UNSIGNED-PAYLOAD', chunks: { signer, scope, date, seed } }
}

/**
 * Holds a form against its policy and returns the sizes it allows.
 * Throws `AccessDenied` with S3's reason, and for a field no condition mentions.
 * @see https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
 */
export function checkPolicy(fields: FormFields, bucket: string, nowMs: number): SizeRange {
  const policy = parsePolicy(fields.policy ?? '')
  if (nowMs > policy.expiresAtMs) throw refused('Policy expired.')
  let range: SizeRange = { min: 0, max: Number.POSITIVE_INFINITY }
  const declared = new Set<string>(['bucket'])
  for (const condition of policy.conditions) {
    if (condition.kind === 'size') {
      range = condition.range
      continue
    }
    declared.add(condition.field)
    const actual = condition.field === 'bucket' ? bucket : fields[condition.field]
    const holds =
      actual !== undefined &&
      (condition.kind === 'eq' ? actual === condition.value : actual.startsWith(condition.value))
    if (!holds) throw refused(`Policy Condition failed: ${JSON.stringify(condition.source)}`)
  }
  const extra = Object.keys(fields).filter(
    (name) => !declared.has(name) && !undeclared.includes(name) && !name.startsWith('x-ignore-'),
  )
  if (extra.length > 0) throw refused(`Extra input fields: ${extra.join(', ')}`)
  return range
}

function parsePolicy(encoded: string): { expiresAtMs: number; conditions: Condition[] } {
  let policy: unknown
  try {
    policy = JSON.parse(Buffer.from(encoded, 'base64').toString('utf8'))
  } catch (cause) {
    throw refused('Invalid JSON.', cause)
  }
  if (typeof policy !== 'object' || policy === null) throw refused('Invalid JSON.')
  const { expiration, conditions } = policy as Record<string, unknown>
  const expiresAtMs = typeof expiration === 'string' ? Date.parse(expiration) : Number.NaN
  if (Number.isNaN(expiresAtMs)) throw refused("Invalid 'expiration' value.")
  if (!Array.isArray(conditions)) throw refused("Policy missing 'conditions'.")
  return { expiresAtMs, conditions: conditions.flatMap(parseCondition) }
}

function parseCondition(source: unknown): Condition[] {
  if (Array.isArray(source)) {
    const [kind, first, second] = source as unknown[]
    const operator = typeof kind === 'string' ? kind.toLowerCase() : ''
    if (operator === 'content-length-range')
      return [{ kind: 'size', range: { min: bound(first), max: bound(second) } }]
    const isComparison = operator === 'eq' || operator === 'starts-with'
    if (isComparison && typeof first === 'string' && first.startsWith('$') && typeof second === 'string') {
      return [{ kind: operator, field: first.slice(1).toLowerCase(), value: second, source }]
    }
  } else if (typeof source === 'object' && source !== null) {
    return Object.entries(source).map(([name, value]) => {
      if (typeof value !== 'string') throw refused('Invalid Simple-Condition: value must be a string.')
      return { kind: 'eq', field: name.toLowerCase(), value, source: ['eq', `$${name}`, value] }
    })
  }
  throw refused(`Invalid Condition: ${JSON.stringify(source)}`)
}

function bound(value: unknown): number {
  const number = typeof value === 'string' || typeof value === 'number' ? Number(value) : Number.NaN
  if (!Number.isInteger(number) || number < 0) throw refused('Invalid content-length-range.')
  return number
}

function refused(reason: string, cause?: unknown): S3Error {
  return new S3Error('AccessDenied', { message: `Invalid according to Policy: ${reason}`, cause })
}
