/** A JSON value as metadata may hold it. */
export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue }
/** The user's own metadata: one JSON object. */
export type JsonObject = { [key: string]: JsonValue }

/** A tier that outlives the sandbox. */
export type RemoteTier = 's3' | 'http'

/** A remote tier's acceptance of a result. */
export interface StoredAt {
  readonly tier: RemoteTier
  /** `s3://bucket/key` or the endpoint's URL without its query; never holds a secret. */
  readonly location: string
  /** ISO 8601, UTC. */
  readonly at: string
}

/** The last failure of a tier for one result. */
export interface TierError {
  /** One of the SDK's error codes. */
  readonly code: string
  readonly message: string
  /** ISO 8601, UTC. */
  readonly at: string
}

/**
 * The metadata record: what is known of one result. It lies beside the result in the spool as `{key}.meta.json`,
 * written last, so that a record means a whole result.
 */
export interface ResultRecord {
  readonly v: 1
  readonly task_id: string
  /** UTC, `YYYYMMDD-HHMMSS`. */
  readonly timestamp: string
  /** As in the key; an archived directory's ends in `.tar.gz`. */
  readonly name: string
  readonly key: string
  /** Bytes. */
  readonly size: number
  /** 64 lower-case hex digits. */
  readonly sha256: string
  readonly content_type: string
  readonly metadata: JsonObject
  /** ISO 8601 with milliseconds, UTC. */
  readonly created_at: string
  /** How a directory was packed; null for a file. */
  readonly archive: 'tar.gz' | null
  /** Remote tiers that hold it. Empty means pending: only the spool has it. */
  readonly stored: readonly StoredAt[]
  readonly errors: Readonly<Partial<Record<RemoteTier, TierError>>>
}
