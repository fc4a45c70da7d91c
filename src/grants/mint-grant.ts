import { createPresignedPost } from '@aws-sdk/s3-presigned-post'
import type { CallOptions } from '../call-options.js'
import { ConductorError } from '../errors.js'
import type { Grant, GrantBroker, GrantHttp, GrantPolicy, GrantS3 } from '../protocol/grant.js'
import { S3_METADATA_NAMES, s3TaskPrefix } from '../protocol/s3-layout.js'
import { mapS3Error } from '../stores/s3/map-s3-error.js'
import { objectFields, objectHeaders } from '../stores/s3/object-options.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import { mintSession, type SessionOptions } from './session/mint-session.js'

/** S3 takes no more in one request: https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html */
export const MAX_SINGLE_PUT_BYTES = 5 * 1024 ** 3

/** What a grant is to allow. */
export interface MintGrantOptions extends CallOptions {
  readonly taskId: string
  readonly expiresAt: Date
  /** Where the worker may write, under its own prefix only. */
  readonly s3?: S3Location | undefined
  readonly http?: GrantHttp | undefined
  /** Largest single result, in bytes. */
  readonly maxResultBytes: number
  /** Whether the worker may upload by itself, up to what S3 takes in one request. @default true */
  readonly policy?: boolean | undefined
  /** How the worker asks its conductor, if somebody answers. */
  readonly broker?: GrantBroker | undefined
  /** The role of which the worker gets a session; the one means that asks somebody. */
  readonly session?: SessionOptions | undefined
}

/**
 * Makes a grant. But for a session nothing is sent: the conductor's own key signs it, and its clock decides when it expires.
 * A grant with a session expires with it, which may be sooner than asked for.
 */
export async function mintGrant(options: MintGrantOptions): Promise<Grant> {
  const { taskId, expiresAt, s3, http } = options
  if (expiresAt.getTime() <= Date.now()) {
    throw new ConductorError(
      'INVALID_OPTION',
      `a grant cannot expire in the past (${expiresAt.toISOString()})`,
    )
  }
  const place = s3 === undefined ? undefined : await mintS3(s3, options)
  const ends = place?.session?.expires_at ?? expiresAt.toISOString()
  return {
    v: 1,
    task_id: taskId,
    expires_at: Date.parse(ends) < expiresAt.getTime() ? ends : expiresAt.toISOString(),
    ...(place === undefined ? {} : { s3: place }),
    ...(http === undefined ? {} : { http }),
  }
}

async function mintS3(s3: S3Location, options: MintGrantOptions): Promise<GrantS3> {
  const { broker, policy = true, session } = options
  return {
    bucket: s3.bucket,
    prefix: s3.prefix,
    region: s3.region,
    ...(s3.endpoint === undefined ? {} : { endpoint: s3.endpoint }),
    ...(policy ? { policy: await mintPolicy(s3, options) } : {}),
    ...(broker === undefined ? {} : { broker }),
    ...(session === undefined ? {} : await mintSessionPart(s3, session, options)),
  }
}

async function mintSessionPart(
  s3: S3Location,
  session: SessionOptions,
  options: MintGrantOptions,
): Promise<Pick<GrantS3, 'session' | 'headers'>> {
  const { accessKeyId, secretAccessKey, sessionToken, expiresAt } = await mintSession(s3, session, options)
  const headers = objectHeaders(s3)
  return {
    session: {
      access_key_id: accessKeyId,
      secret_access_key: secretAccessKey,
      session_token: sessionToken,
      expires_at: expiresAt.toISOString(),
    },
    ...(Object.keys(headers).length === 0 ? {} : { headers }),
  }
}

async function mintPolicy(s3: S3Location, options: MintGrantOptions): Promise<GrantPolicy> {
  const { taskId, expiresAt, signal } = options
  const maxBytes = Math.min(options.maxResultBytes, MAX_SINGLE_PUT_BYTES)
  try {
    const { url, fields } = await createPresignedPost(s3.client, {
      Bucket: s3.bucket,
      // Becomes a `starts-with` condition on the key: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
      Key: `${s3TaskPrefix(s3.prefix, taskId)}\${filename}`,
      // Becomes fields, and conditions that hold them to these very values.
      Fields: objectFields(s3),
      Conditions: [
        ['content-length-range', 0, maxBytes],
        ['starts-with', '$Content-Type', ''],
        ...S3_METADATA_NAMES.map((name): ['starts-with', string, string] => [
          'starts-with',
          `$x-amz-meta-${name}`,
          '',
        ]),
      ],
      Expires: Math.ceil((expiresAt.getTime() - Date.now()) / 1000),
    })
    return { url, fields, max_bytes: maxBytes }
  } catch (error) {
    throw mapS3Error(error, `sign a grant for ${taskId}`, signal)
  }
}
