/**
 * What one worker may do, for a bounded time; handed to it instead of credentials. It is a secret of that worker's:
 * whoever has it can write under the task's prefix until it expires.
 */
export interface Grant {
  readonly v: 1
  readonly task_id: string
  /** ISO 8601, UTC. */
  readonly expires_at: string
  readonly s3?: GrantS3 | undefined
  readonly http?: GrantHttp | undefined
}

/** The S3 part of a grant. */
export interface GrantS3 {
  readonly bucket: string
  readonly prefix: string
  readonly region: string
  /** Base URL, or undefined for AWS itself. */
  readonly endpoint?: string | undefined
  readonly policy?: GrantPolicy | undefined
}

/** An S3 POST policy: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html */
export interface GrantPolicy {
  /** Where to POST; may differ from the conductor's own address of the store. */
  readonly url: string
  /** Form fields to send as they are, before `file`; `key` among them is a pattern to be replaced. */
  readonly fields: Readonly<Record<string, string>>
  /** Largest body that the store will take, in bytes. */
  readonly max_bytes: number
}

/** The HTTP part of a grant. */
export interface GrantHttp {
  readonly endpoint: string
  readonly token?: string | undefined
}
