import { S3Error } from '../errors.js'

/** What S3's own policies call the right to do something. */
export type S3Action =
  | 's3:AbortMultipartUpload'
  | 's3:CreateBucket'
  | 's3:DeleteBucket'
  | 's3:DeleteObject'
  | 's3:GetBucketLocation'
  | 's3:GetEncryptionConfiguration'
  | 's3:GetObject'
  | 's3:ListAllMyBuckets'
  | 's3:ListBucket'
  | 's3:ListBucketMultipartUploads'
  | 's3:ListMultipartUploadParts'
  | 's3:PutEncryptionConfiguration'
  | 's3:PutObject'

/** One thing a restricted credential may do. */
export interface LocalS3Allow {
  readonly bucket: string
  /** Keys, or list prefixes, must start with this. @default '' */
  readonly prefix?: string | undefined
  /** @default every action */
  readonly actions?: readonly S3Action[] | undefined
}

/** A key pair the server knows. */
export interface LocalS3Credential {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  /** When set, requests must carry it, as with temporary credentials. */
  readonly sessionToken?: string
  /** From this time on the server answers `ExpiredToken`. Milliseconds since the epoch. */
  readonly expiresAtMs?: number | undefined
  /** When set, whatever is not listed is refused. @default everything is allowed */
  readonly allow?: readonly LocalS3Allow[] | undefined
}

/** What a request is about to do to what. */
export interface AccessRequest {
  readonly action: S3Action
  readonly bucket?: string | undefined
  /** The key, or the prefix of a listing. */
  readonly path?: string | undefined
}

/** Finds the key pair of a request and checks its session. Throws as S3 does for unknown, missing and expired ones. */
export function findCredential(
  credentials: readonly LocalS3Credential[],
  accessKeyId: string,
  sessionToken: string | undefined,
  nowMs: number,
): LocalS3Credential {
  const known = credentials.filter((credential) => credential.accessKeyId === accessKeyId)
  // A temporary key without its token is as unknown as any other.
  if (
    known.length === 0 ||
    (sessionToken === undefined && known.every((c) => c.sessionToken !== undefined))
  ) {
    throw new S3Error('InvalidAccessKeyId', { details: { AWSAccessKeyId: accessKeyId } })
  }
  const credential = known.find((candidate) => candidate.sessionToken === sessionToken)
  if (credential === undefined) throw new S3Error('InvalidToken')
  if (credential.expiresAtMs !== undefined && nowMs >= credential.expiresAtMs)
    throw new S3Error('ExpiredToken')
  return credential
}

/** Whether the credential reaches that far. The one place where permissions are decided. */
export function isAllowed(credential: LocalS3Credential, access: AccessRequest): boolean {
  if (credential.allow === undefined) return true
  return credential.allow.some(
    ({ bucket, prefix = '', actions }) =>
      bucket === access.bucket &&
      (access.path ?? '').startsWith(prefix) &&
      (actions === undefined || actions.includes(access.action)),
  )
}

/** Throws `AccessDenied` unless {@link isAllowed}. */
export function authorise(credential: LocalS3Credential, access: AccessRequest): void {
  if (!isAllowed(credential, access)) {
    throw new S3Error('AccessDenied', {
      message: `User: ${credential.accessKeyId} is not authorized to perform: ${access.action}`,
    })
  }
}
