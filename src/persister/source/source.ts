import type { ResultRecord } from '../../protocol/record.js'
import type { Body, BodySource } from '../spool/stage.js'

/** Something to be stored, opened; closing it frees what it holds, whether it was read or not. */
export interface Source {
  /** Name when the caller gives none; undefined for content without a path. */
  readonly defaultName: string | undefined
  readonly archive: 'tar.gz' | null
  /** Content type when its name does not tell. */
  readonly fallbackType: string
  /** Known size in bytes, for progress; undefined for archives and streams. */
  readonly sizeBytes: number | undefined
  /** Starts reading from the beginning. */
  read(): BodySource
  /** Whether it can be read again when storing it failed half-way. */
  readonly repeatable: boolean
  /** Path of a regular file, for sending it from where it is when there is no room for a copy. */
  readonly path: string | undefined
  /** What could not be taken along as it was; complete once it has been read. */
  warnings(): readonly string[]
  close(): Promise<void>
  /** Present when what is read is the encrypted form of something else. */
  readonly sealing?: Sealing | undefined
}

/** What an encrypted source is the encrypted form of; to be compared by that, since the form is another each time. */
export interface Sealing {
  readonly content: Source
  /** Digest of the content, once it has been read to its end. */
  sha256(): string | undefined
  /** What an earlier result holds, as far as it is known here. */
  recall(record: ResultRecord): Pick<ResultRecord, 'size' | 'sha256'> | undefined
  /** Told of a body that was made of it. */
  staged(body: Body): void
}
