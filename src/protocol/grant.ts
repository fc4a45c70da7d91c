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
  /** Uploads in one request, without asking anybody. */
  readonly policy?: GrantPolicy | undefined
  /** Requests signed one at a time by the conductor: with a policy too, for what that cannot do. */
  readonly broker?: GrantBroker | undefined
  /** Temporary credentials for the task's prefix only. */
  readonly session?: GrantSession | undefined
  /** Sent with every object that is made with `session`, names in lower case: encryption and tags. */
  readonly headers?: Readonly<Record<string, string>> | undefined
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

/** Where the conductor signs requests on demand; `src/protocol/broker.ts` says how it is asked. */
export interface GrantBroker {
  readonly v: 1
  /** Where to POST requests; without it they are files in the worker's own folder. */
  readonly url?: string | undefined
  /** Bearer token for `url`. */
  readonly token?: string | undefined
  /** Largest result that will be signed for, in bytes. */
  readonly max_bytes: number
  /** Largest body of one `PUT`, in bytes; a bigger one goes in parts. */
  readonly put_bytes: number
}

/** Temporary credentials: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
export interface GrantSession {
  readonly access_key_id: string
  readonly secret_access_key: string
  readonly session_token: string
  /** ISO 8601, UTC; may be earlier than the grant's own, since roles limit it. A fresh grant file comes before. */
  readonly expires_at: string
}

/** The HTTP part of a grant. */
export interface GrantHttp {
  readonly endpoint: string
  readonly token?: string | undefined
}
