import { closeSync, ftruncateSync, openSync, renameSync } from 'node:fs'
import { dirname } from 'node:path'
import { sync, writeAt } from '../../files/disk.js'
import { syncFolder, writeDurably } from '../../files/durable-file.js'
import { takeRoom } from './taken-room.js'

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
