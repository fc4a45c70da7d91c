import { writeFileSync } from 'node:fs'
import { removeFile } from '../../files/disk.js'
import { temporaryPath } from '../../files/durable-file.js'

/** More than any exit record takes, and any remark in a log. */
const ROOM_BYTES = 4096

/** Makes a file that holds room on the disk for what must be written once it is full; undefined where there is no room even for that. */
export function takeRoom(folder: string): string | undefined {
  const path = temporaryPath(folder)
  try {
    // Zeros might be kept as a hole.
    writeFileSync(path, ' '.repeat(ROOM_BYTES), { flag: 'wx' })
    return path
  } catch {
    removeFile(path)
    // Then what needs it waits for room like everything else.
    return undefined
  }
}
