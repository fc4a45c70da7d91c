import type { CallOptions } from '../call-options.js'
import type { ConductorError } from '../errors.js'
import type { JsonObject, ResultRecord } from '../protocol/record.js'

/** Kinds of places that results are read from. */
export type StoreTier = 's3' | 'http' | 'volume' | 'sandbox' | 'directory'

/** What a store knows of one result. Everything in it was written by a worker, except the size. */
export interface ResultDescription {
  readonly key: string
  /** Bytes that the store holds, by its own count. */
  readonly size: number
  /** What the worker said it stored, 64 hex digits; undefined when it said nothing usable. */
  readonly sha256: string | undefined
  readonly contentType: string
  readonly metadata: JsonObject
  /** When the worker stored it, or when the store took it. */
  readonly createdAt: Date
  readonly archive: 'tar.gz' | null
  /** Says what of the description was malformed and is therefore missing. */
  readonly problem: string | undefined
  /** Says how the store fell short of the encryption that it is configured with; reading is not concerned. */
  readonly notEncrypted?: string | undefined
}

/** What of a description comes along with the bytes: all that it takes to verify and decrypt them. */
export type BodyFacts = Pick<ResultDescription, 'key' | 'size' | 'sha256' | 'contentType' | 'problem'>

/** A body, and what it must be. */
export interface DescribedBody {
  readonly body: ReadableStream<Uint8Array>
  readonly about: BodyFacts
}

/** One line of a listing. */
export interface StoredEntry {
  readonly key: string
  /** Bytes. */
  readonly size: number
  /** Present where listing yields it at no extra cost. */
  readonly description?: ResultDescription | undefined
}

/** Options for reading a body. */
export interface OpenOptions extends CallOptions {
  /** First byte wanted, for going on with a broken read. @default 0 */
  readonly offset?: number | undefined
}

/** Options for a listing. */
export interface ListOptions extends CallOptions {
  /** Lists only keys that sort after this one. */
  readonly startAfter?: string | undefined
}

/** Options for a deletion. */
export interface DeleteOptions extends CallOptions {
  /** Whether a listing has shown it here: a store that would have to ask whether it was there believes that. @default false */
  readonly listed?: boolean | undefined
}

/** One of several results that are to be deleted. */
export interface DeletedKey extends Pick<DeleteOptions, 'listed'> {
  readonly key: string
}

/** Options for a link that works without credentials. */
export interface UrlOptions extends CallOptions {
  /** How long the link works, in seconds; S3 allows at most 604,800 (7 days). @default 3600 */
  readonly expiresInSeconds?: number | undefined
  /** File name that a browser saves under; the store then sends it as an attachment. */
  readonly filename?: string | undefined
}

/** A place where sandboxes leave results and the conductor reads them back. */
export interface ResultStore {
  /** Names this place in messages, for example `s3://bucket/results`. Holds no secret. */
  readonly name: string
  readonly tier: StoreTier
  /** Whether asking costs so much that a sealed task is not looked for here, nor a result that another place has. @default false */
  readonly lastResort?: boolean | undefined
  /** Lists a task's whole results in key order, one page at most ahead of a consumer that has read a whole one. What is no result is passed over. */
  list(taskId: string, options?: ListOptions): AsyncIterable<StoredEntry>
  /** Resolves `undefined` when absent; rejects only when the store cannot tell. */
  describe(key: string, options?: CallOptions): Promise<ResultDescription | undefined>
  /** Rejects with `NOT_FOUND` before the first byte; cancelling the stream frees the connection. Digests are the caller's to check. */
  open(key: string, options?: OpenOptions): Promise<ReadableStream<Uint8Array>>
  /** As {@link open}, from the first byte on; missing where a request for the bytes does not tell what they must be. */
  openDescribed?(key: string, options?: CallOptions): Promise<DescribedBody>
  /**
   * Removes a result with everything that belongs to it, in an order that never leaves a record without its bytes; resolves false
   * when it was not there. Repeating a call that failed ends what it began. Rejects with `UNSUPPORTED` where nothing can be deleted.
   */
  delete(key: string, options?: DeleteOptions): Promise<boolean>
  /**
   * As {@link delete} of each, in fewer requests; missing where it takes as many. Resolves with what became of each key; a failure
   * of one does not hold up the rest.
   */
  deleteMany?(
    wanted: readonly DeletedKey[],
    options?: CallOptions,
  ): Promise<ReadonlyMap<string, boolean | ConductorError>>
  /** A presigned link to the body; missing where the store has no such thing. */
  url?(key: string, options?: UrlOptions): Promise<string>
}

/** Turns a record read from a spool or manifest into what readers are told. */
export function describeRecord(record: ResultRecord): ResultDescription {
  return {
    key: record.key,
    size: record.size,
    sha256: record.sha256,
    contentType: record.content_type,
    metadata: record.metadata,
    createdAt: new Date(record.created_at),
    archive: record.archive,
    problem: undefined,
  }
}
