import { closeSync, ftruncateSync, openSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { removeFile, sync, writeAt } from '../../files/disk.js'
import { syncFolder, temporaryPath, writeDurably } from '../../files/durable-file.js'

/** More than any exit record takes. */
const ROOM_BYTES = 4096

/** The exit record's place on the disk, taken before the command starts: a disk that it fills still has room for its end. */
export class ExitFile {
  readonly #path: string
  readonly #room: string | undefined

  constructor(path: string) {
    this.#path = path
    this.#room = takeRoom(dirname(path))
  }

  /** Puts the record there, whole and safe from a crash. */
  async write(text: string): Promise<void> {
    if (this.#room === undefined) return await writeDurably(this.#path, text)
    const bytes = Buffer.from(text)
    // Over what lies there, which takes no more room; cut to its length only then.
    const descriptor = openSync(this.#room, 'r+')
    try {
      await writeAt(descriptor, bytes, 0)
      ftruncateSync(descriptor, bytes.length)
      await sync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    renameSync(this.#room, this.#path)
    await syncFolder(dirname(this.#path))
  }
}

/** A file that is as long as a record may get; undefined where there is no room even for that. */
function takeRoom(folder: string): string | undefined {
  const path = temporaryPath(folder)
  try {
    // Zeros might be kept as a hole.
    writeFileSync(path, ' '.repeat(ROOM_BYTES), { flag: 'wx' })
    return path
  } catch {
    removeFile(path)
    // Then the record waits for room like everything else.
    return undefined
  }
}
