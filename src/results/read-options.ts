import type { CallOptions } from '../call-options.js'
import type { UrlOptions } from '../stores/result-store.js'

/** Options for reading a result. */
export interface ReadOptions extends CallOptions {
  /** Whether the bytes are checked against the digest that was stored with them. @default true */
  readonly verify?: boolean | undefined
  /** Whether an encrypted result is decrypted; otherwise its bytes come as they are stored. @default true */
  readonly decrypt?: boolean | undefined
}

/** Options for reading a result into memory. */
export interface ReadAllOptions extends ReadOptions {
  /** Refuses larger results with `TOO_LARGE`, in bytes. @default no limit */
  readonly maxBytes?: number | undefined
}

/** Options for a link to a result. */
export interface ResultUrlOptions extends UrlOptions {
  /** Also makes a link to an encrypted result, which leads to its encrypted bytes. @default false */
  readonly encrypted?: boolean | undefined
}

/** Options for saving a result. */
export interface SaveOptions extends ReadOptions {
  /** Told how many bytes are there so far of `size`, as they come; with what an earlier call left. */
  readonly onBytes?: ((sizeBytes: number) => void) | undefined
  /**
   * The names of the unfinished files in the file's folder, so that saving many into one does not list it for each.
   * @internal
   */
  readonly siblings?: readonly string[] | undefined
}

/** Options for unpacking a result. */
export interface ExtractOptions extends ReadOptions {
  /** Refuses archives that unpack to more, in bytes. @default 200 times the archive's size, and 256 MiB */
  readonly maxBytes?: number | undefined
  /** Refuses archives with more files, folders and links. @default 1,000,000 */
  readonly maxEntries?: number | undefined
}
