import { createPresignedPost } from '@aws-sdk/s3-presigned-post'
import type { CallOptions } from '../call-options.js'
import { ConductorError } from '../errors.js'
import type { Grant, GrantHttp, GrantS3 } from '../protocol/grant.js'
import { S3_METADATA_NAMES, s3TaskPrefix } from '../protocol/s3-layout.js'
import { mapS3Error } from '../stores/s3/map-s3-error.js'
import type { S3Location } from '../stores/s3/s3-location.js'

/** What a grant is to allow. */
export interface MintGrantOptions extends CallOptions {
  readonly taskId: string
  readonly expiresAt: Date
  /** Where the worker may write, under its own prefix only. */
  readonly s3?: S3Location | undefined
  readonly http?: GrantHttp | undefined
  /** Largest single result, in bytes; S3 takes at most 5 GiB in one request. */
  readonly maxResultBytes: number
}

/** Makes a grant. Nothing is sent: the conductor's own key signs it, and its clock decides when it expires. */
export async function mintGrant(options: MintGrantOptions): Promise<Grant> {
  const { taskId, expiresAt, s3, http } = options
  return {
    v: 1,
    task_id: taskId,
    expires_at: expiresAt.toISOString(),
    ...(s3 === undefined ? {} : { s3: await mintS3(s3, options) }),
    ...(http === undefined ? {} : { http }),
  }
}

async function mintS3(s3: S3Location, options: MintGrantOptions): Promise<GrantS3> {
  const { taskId, expiresAt, maxResultBytes, signal } = options
  const seconds = Math.ceil((expiresAt.getTime() - Date.now()) / 1000)
  if (seconds <= 0)
    throw new ConductorError(
      'INVALID_OPTION',
      `a grant cannot expire in the past (${expiresAt.toISOString()})`,
    )
  try {
    const { url, fields } = await createPresignedPost(s3.client, {
      Bucket: s3.bucket,
      // Becomes a `starts-with` condition on the key: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
      Key: `${s3TaskPrefix(s3.prefix, taskId)}\${filename}`,
      Conditions: [
        ['content-length-range', 0, maxResultBytes],
        ['starts-with', '$Content-Type', ''],
        ...S3_METADATA_NAMES.map((name): ['starts-with', string, string] => [
          'starts-with',
          `$x-amz-meta-${name}`,
          '',
        ]),
      ],
      Expires: seconds,
    })
    return {
      bucket: s3.bucket,
      prefix: s3.prefix,
      region: s3.region,
      ...(s3.endpoint === undefined ? {} : { endpoint: s3.endpoint }),
      policy: { url, fields, max_bytes: maxResultBytes },
    }
  } catch (error) {
    throw mapS3Error(error, `sign a grant for ${taskId}`, signal)
  }
}
