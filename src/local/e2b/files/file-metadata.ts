import type { BigIntStats } from 'node:fs'

/**
 * What clients said about the files they uploaded. E2B keeps it in extended attributes, which Node cannot reach; here it is kept
 * beside the sandbox under the file's identity, so that it moves with a rename and goes with the file.
 */
export class FileMetadata {
  readonly #byFile = new Map<string, Readonly<Record<string, string>>>()

  get(stat: BigIntStats): Readonly<Record<string, string>> | undefined {
    return this.#byFile.get(identity(stat))
  }

  /** Replaces all that was said about the file before. */
  set(stat: BigIntStats, metadata: Readonly<Record<string, string>>): void {
    if (Object.keys(metadata).length === 0) this.#byFile.delete(identity(stat))
    else this.#byFile.set(identity(stat), metadata)
  }
}

function identity(stat: BigIntStats): string {
  // Inode numbers are used again after a file is gone; together with the time of birth they are not.
  return `${stat.dev}:${stat.ino}:${stat.birthtimeNs}`
}
