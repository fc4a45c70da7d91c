import type { Writable } from 'node:stream'

/** Where a result's bytes can be had from. */
export interface Copy {
  /** For messages: `local`, `s3` or `http`. */
  readonly where: string
  /** Digest to hold the bytes against; undefined where the place does not know it. */
  readonly sha256: string | undefined
  /** Tells whether they are encrypted. */
  readonly contentType: string
  /** Writes all bytes to `sink` and ends it. */
  read(sink: Writable): Promise<void>
  /** Whether reading it costs so little that a receiver without a way back may have it read twice. */
  readonly near: boolean
}
