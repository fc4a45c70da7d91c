import type { CallOptions } from '../../call-options.js'
import { mapS3Error } from '../../stores/s3/map-s3-error.js'
import type { S3Location } from '../../stores/s3/s3-location.js'
import { assumeRole, type Session } from './assume-role.js'
import { sessionPolicy } from './session-policy.js'

/** STS gives none for less: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
const MIN_SECONDS = 900
/** What roles allow unless they are told otherwise, and all that role chaining allows whatever the role says. */
const DEFAULT_MAX_SECONDS = 3600

/** The role whose sessions workers get. */
export interface SessionOptions {
  /** Needs `s3:PutObject`, `s3:PutObjectTagging`, `s3:GetObject` and `s3:AbortMultipartUpload` on the bucket; sessions get no more than that on their own prefix. */
  readonly roleArn: string
  /** STS's address. @default that of the store where it is not AWS's own, else the region's */
  readonly endpoint?: string | undefined
  readonly externalId?: string | undefined
  /** The role's own limit, in seconds. With temporary credentials of the conductor's own AWS allows 3,600. @default 3600 */
  readonly maxSeconds?: number | undefined
}

/** Whom a session is for. */
export interface MintSessionOptions extends CallOptions {
  readonly taskId: string
  /** When it may end at the earliest; roles may make it end before, and then a fresh one has to follow. */
  readonly expiresAt: Date
}

/** Asks STS for a session that reaches one task's prefix and nothing else. */
export async function mintSession(
  at: S3Location,
  options: SessionOptions,
  { taskId, expiresAt, signal }: MintSessionOptions,
): Promise<Session> {
  let isChained: boolean
  try {
    isChained = (await at.client.config.credentials()).sessionToken !== undefined
  } catch (error) {
    throw mapS3Error(error, 'find AWS credentials', signal)
  }
  const limit = options.maxSeconds ?? DEFAULT_MAX_SECONDS
  const wanted = Math.ceil((expiresAt.getTime() - Date.now()) / 1000)
  return await assumeRole({
    client: at.client,
    endpoint: options.endpoint ?? at.endpoint ?? regionalSts(at.region),
    region: at.region,
    roleArn: options.roleArn,
    externalId: options.externalId,
    sessionName: sessionName(taskId),
    policy: sessionPolicy({ bucket: at.bucket, prefix: at.prefix, region: at.region, taskId }),
    durationSeconds: Math.max(
      MIN_SECONDS,
      Math.min(wanted, isChained ? Math.min(limit, DEFAULT_MAX_SECONDS) : limit),
    ),
    signal,
  })
}

function regionalSts(region: string): string {
  return `https://sts.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`
}

/** Two to 64 characters of those that a task id has as well. */
function sessionName(taskId: string): string {
  return `stu-${taskId.slice(0, 60)}`
}
