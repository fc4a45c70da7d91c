import type { Readable } from 'node:stream'

/** A JSON value as metadata may hold it. */
export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue }

/** A remote tier's acceptance of a result. */
export interface StoredAt {
  readonly tier: 's3' | 'http'
  /** `s3://bucket/key` or the endpoint's URL without its query; never holds a secret. */
  readonly location: string
  /** ISO 8601, UTC. */
  readonly at: string
}

/** The last failure of a tier for one result. */
export interface TierError {
  readonly code: string
  readonly message: string
  /** ISO 8601, UTC. */
  readonly at: string
}

/** What is known of one result. */
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
  readonly metadata: { [key: string]: JsonValue }
  /** ISO 8601 with milliseconds, UTC. */
  readonly created_at: string
  /** How a directory was packed; null for a file. */
  readonly archive: 'tar.gz' | null
  /** Remote tiers that hold it. Empty means pending: only the local spool has it. */
  readonly stored: readonly StoredAt[]
  readonly errors: Readonly<Partial<Record<'s3' | 'http', TierError>>>
}

/** What every function takes besides its own options. */
export interface CommonOptions {
  /** Variables to read instead of the process's own environment. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  /** Takes remarks, one line each. @default writes them to standard error */
  readonly warn?: ((line: string) => void) | undefined
}

/** Options of {@link persistResult}. */
export interface PersistOptions extends CommonOptions {
  /** @default the path's last segment; content needs one */
  readonly name?: string | undefined
  /** Any JSON object of at most 100 levels. @default {} */
  readonly metadata?: object | undefined
  /** @default `WORKER_ID` */
  readonly taskId?: string | undefined
  /** @default by the name's ending */
  readonly contentType?: string | undefined
  /** Where the result has to get to; it rejects with `UNDELIVERED` otherwise, although the result is stored. */
  readonly require?: 's3' | 'http' | 'remote' | undefined
  /** What a string is. @default a path if it exists, else content */
  readonly as?: 'path' | 'content' | undefined
  /** Gives up on remote tiers; the result is then in the spool, and the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/** Options of {@link flush}. */
export interface FlushOptions extends CommonOptions {
  /** @default `WORKER_ID` */
  readonly taskId?: string | undefined
  /** Where the results have to get to; without it any remote tier will do. */
  readonly require?: 's3' | 'http' | 'remote' | undefined
}

/** What a flush found and did. */
export interface Flushed {
  /** Delivered now. */
  readonly delivered: ResultRecord[]
  /** Still not where they should be, because no tier took them or another process is at work on them. */
  readonly pending: ResultRecord[]
}

/**
 * Stores a file, a directory (as `.tar.gz`) or content. Resolves once the result is safe: in the local spool, synced, and in
 * the first remote tier that took it; `stored` says which. Rejects, with a `code`, when it is stored nowhere.
 */
export function persistResult(
  input: string | Uint8Array | Readable,
  options?: PersistOptions,
): Promise<ResultRecord>

/** Every result of a task in the local spool, in key order. @param taskId default `WORKER_ID`, else all tasks */
export function listResults(taskId?: string, options?: CommonOptions): Promise<ResultRecord[]>

/** A result's bytes, checked against their digest; from the spool, else from S3 or the HTTP endpoint. */
export function retrieveResult(key: string, options?: CommonOptions): Promise<Buffer>

/** Delivers what no remote tier has yet. */
export function flush(options?: FlushOptions): Promise<Flushed>
