import type { Checksums } from '../body/request-body.js'

/** What a client says about an object besides its bytes. */
export interface ObjectAttributes {
  /** Standard headers by lower-case name: `content-type`, `cache-control` and the like. */
  readonly headers: Readonly<Record<string, string>>
  /** User metadata, names without `x-amz-meta-`. */
  readonly metadata: Readonly<Record<string, string>>
  /** `x-amz-server-side-encryption*` headers, asked for or the bucket's default; given back, nothing is encrypted. */
  readonly encryption: Readonly<Record<string, string>>
  readonly tags: readonly (readonly [name: string, value: string])[]
}

/** Everything about a stored object but its bytes. */
export interface ObjectRecord {
  readonly key: string
  readonly sizeBytes: number
  /** Without quotes. */
  readonly etag: string
  /** Whole seconds, in milliseconds since the epoch, as S3 keeps time. */
  readonly lastModifiedMs: number
  readonly attributes: ObjectAttributes
  readonly checksums: Checksums
  readonly checksumType: 'FULL_OBJECT' | 'COMPOSITE'
  /** Sizes of the parts, of an object that was uploaded in parts. */
  readonly partSizesBytes?: readonly number[]
}

/** Everything about an uploaded part but its bytes. */
export interface PartRecord {
  readonly partNumber: number
  readonly sizeBytes: number
  readonly etag: string
  readonly lastModifiedMs: number
  readonly checksums: Checksums
}
