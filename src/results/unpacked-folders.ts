import { appendFile, lstat, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'

/** Which folders were unpacked here, a line of JSON each; no result's name begins with a dot. */
const LOG_NAME = '.unpacked.jsonl'

const entrySchema = z.object({
  folder: z.string(),
  /** Of the archive as it is stored; null says that the folder did not get its name after all. */
  sha256: z.string().nullable(),
  /** The name that it had until then. */
  staging: z.string(),
})
type Entry = z.infer<typeof entrySchema>

/**
 * Remembers beside the folders of a download which archive each was unpacked from; a folder of which nothing is written down is
 * somebody else's. What is written counts from when the folder's first name is gone, so that it holds wherever a crash comes.
 */
export class UnpackedFolders {
  readonly #dir: string
  readonly #latest: ReadonlyMap<string, Entry>

  private constructor(dir: string, entries: readonly Entry[]) {
    this.#dir = dir
    const failed = new Set(entries.flatMap(({ sha256, staging }) => (sha256 === null ? [staging] : [])))
    const named = entries.filter(({ staging }) => !failed.has(staging))
    this.#latest = new Map(named.map((entry) => [entry.folder, entry]))
  }

  /** Reads what earlier downloads into a folder wrote down, also those of other processes. */
  static async open(dir: string): Promise<UnpackedFolders> {
    const text = await readFile(join(dir, LOG_NAME), 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return ''
      throw error
    })
    return new UnpackedFolders(dir, text.split('\n').flatMap(parseEntry))
  }

  /** Whether a folder that is there was unpacked, the last time, from these bytes. */
  async isOf(folder: string, sha256: string): Promise<boolean> {
    const last = this.#latest.get(folder)
    return last?.sha256 === sha256 && !(await isThere(join(this.#dir, basename(last.staging))))
  }

  /** To be called when everything is in a folder, just before it gets its name. */
  async add(folder: string, sha256: string, stagingPath: string): Promise<void> {
    await this.#write({ folder, sha256, staging: basename(stagingPath) })
  }

  /** To be called when it did not get its name, before it is removed. */
  async retract(folder: string, stagingPath: string): Promise<void> {
    await this.#write({ folder, sha256: null, staging: basename(stagingPath) })
  }

  async #write(entry: Entry): Promise<void> {
    // On a line of its own, whatever a crash has cut off before it.
    await appendFile(join(this.#dir, LOG_NAME), `\n${JSON.stringify(entry)}\n`)
  }
}

function parseEntry(line: string): Entry[] {
  try {
    return line === '' ? [] : [entrySchema.parse(JSON.parse(line))]
  } catch {
    // Cut off, or nothing of ours: what it spoke of counts as unknown.
    return []
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
