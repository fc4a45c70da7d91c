import { setTimeout as delay } from 'node:timers/promises'
import type { S3Client } from '@aws-sdk/client-s3'
import { SignatureV4 } from '@smithy/signature-v4'
import { XMLParser } from 'fast-xml-parser'
import { z } from 'zod'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import { joinSignals } from '../../signals.js'
import { mapS3Error } from '../../stores/s3/map-s3-error.js'

const REQUEST_TIMEOUT_MS = 20_000
const ATTEMPTS = 5
const FIRST_PAUSE_MS = 200
const MAX_ANSWER_CHARACTERS = 100_000

/** A role to be assumed, and who assumes it. */
export interface AssumeRoleRequest extends CallOptions {
  /** STS of AWS, Ceph RGW or MinIO. */
  readonly endpoint: string
  readonly region: string
  /** Whose credentials assume it. */
  readonly client: S3Client
  readonly roleArn: string
  readonly externalId?: string | undefined
  /** Shows in the store's audit log. */
  readonly sessionName: string
  /** Narrows what the role allows. */
  readonly policy: string
  readonly durationSeconds: number
}

/** Temporary credentials, and when they end. */
export interface Session {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken: string
  readonly expiresAt: Date
}

const answerSchema = z.object({
  AssumeRoleResponse: z.object({
    AssumeRoleResult: z.object({
      Credentials: z.object({
        AccessKeyId: z.string().min(1),
        SecretAccessKey: z.string().min(1),
        SessionToken: z.string().min(1),
        Expiration: z.iso.datetime({ offset: true }),
      }),
    }),
  }),
})
const errorSchema = z.object({ Code: z.string(), Message: z.string().optional() })
const parser = new XMLParser({ parseTagValue: false })

/**
 * Asks STS for temporary credentials, again where it could not answer:
 * https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
 */
export async function assumeRole(request: AssumeRoleRequest): Promise<Session> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await assumeOnce(request)
    } catch (error) {
      if (!isConductorError(error) || !error.retryable || attempt === ATTEMPTS) throw error
      const { signal } = request
      await delay(FIRST_PAUSE_MS * 2 ** (attempt - 1) * (0.5 + Math.random() / 2), undefined, { signal })
    }
  }
}

async function assumeOnce(request: AssumeRoleRequest): Promise<Session> {
  const answer = await send(request)
  const text = (await answer.text()).slice(0, MAX_ANSWER_CHARACTERS)
  const parsed = parse(text)
  if (!answer.ok) throw refusal(answer.status, parsed, request)
  const read = answerSchema.safeParse(parsed)
  if (!read.success) throw new ConductorError('PROTOCOL', `${request.endpoint} did not answer as STS does`)
  const { AccessKeyId, SecretAccessKey, SessionToken, Expiration } =
    read.data.AssumeRoleResponse.AssumeRoleResult.Credentials
  return {
    accessKeyId: AccessKeyId,
    secretAccessKey: SecretAccessKey,
    sessionToken: SessionToken,
    expiresAt: new Date(Expiration),
  }
}

async function send(request: AssumeRoleRequest): Promise<Response> {
  const { endpoint, region, client, signal } = request
  const url = new URL(endpoint)
  const body = new URLSearchParams({
    Action: 'AssumeRole',
    Version: '2011-06-15',
    RoleArn: request.roleArn,
    RoleSessionName: request.sessionName,
    DurationSeconds: String(request.durationSeconds),
    Policy: request.policy,
    ...(request.externalId === undefined ? {} : { ExternalId: request.externalId }),
  }).toString()
  const signer = new SignatureV4({
    service: 'sts',
    region,
    credentials: client.config.credentials,
    sha256: client.config.sha256,
  })
  let headers: Record<string, string>
  try {
    const request = {
      method: 'POST',
      protocol: url.protocol,
      hostname: url.hostname,
      path: url.pathname,
      query: {},
      headers: { host: url.host, 'content-type': 'application/x-www-form-urlencoded' },
      body,
    }
    const signingDate = new Date(Date.now() + client.config.systemClockOffset)
    headers = (await signer.sign(request, { signingDate })).headers
  } catch (error) {
    throw mapS3Error(error, `sign a request to ${url.origin} (STS)`, signal)
  }
  const { host: _, ...sendable } = headers
  const limit = AbortSignal.timeout(REQUEST_TIMEOUT_MS)
  try {
    return await fetch(url, {
      method: 'POST',
      body,
      headers: sendable,
      redirect: 'error',
      signal: joinSignals(limit, signal),
    })
  } catch (error) {
    if (signal?.aborted) throw signal.reason
    throw new ConductorError('UNAVAILABLE', `${url.origin} (STS) does not answer`, {
      retryable: true,
      cause: error,
    })
  }
}

function parse(text: string): unknown {
  try {
    return parser.parse(text)
  } catch {
    return undefined
  }
}

function refusal(status: number, parsed: unknown, { roleArn, endpoint }: AssumeRoleRequest): ConductorError {
  // AWS wraps the error in <ErrorResponse>, RGW does not.
  const outer = parsed as { ErrorResponse?: { Error?: unknown }; Error?: unknown } | undefined
  const error = errorSchema.safeParse(outer?.ErrorResponse?.Error ?? outer?.Error)
  const code = error.success ? error.data.Code : `HTTP ${status}`
  const message = error.success ? (error.data.Message ?? '') : ''
  const says = `assume ${roleArn} at ${endpoint} failed: ${code}${message === '' ? '' : `: ${message}`}`
  if (code === 'ExpiredToken') return new ConductorError('EXPIRED', says)
  if (status === 429 || status >= 500 || code === 'Throttling') {
    return new ConductorError('UNAVAILABLE', says, { retryable: true })
  }
  if (status === 401 || status === 403) return new ConductorError('ACCESS_DENIED', says)
  return new ConductorError('INVALID_OPTION', says)
}
