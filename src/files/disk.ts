import {
  closeSync,
  fdatasync,
  fsync,
  openSync,
  read,
  readSync,
  unlinkSync,
  write,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { systemCode } from './system-code.js'

/*
 * The program stores one small file and ends, so what costs least counts: a call to the system takes microseconds, handing it
 * to another thread and waking up again takes many times that. Only what moves many bytes or waits for the disk is handed over.
 */

/** Transfers below this are done at once. */
const AT_ONCE_BYTES = 256 * 1024

/** Creates a file of this process's own; fails with `EEXIST` when there is one. The caller closes it. */
export function createFile(path: string, mode = 0o644): number {
  return openSync(path, 'wx', mode)
}

/** Reads from a position as much as fits, or as there is; gives the number of bytes, 0 at the end. */
export async function readAt(descriptor: number, buffer: Uint8Array, position: number): Promise<number> {
  if (buffer.length < AT_ONCE_BYTES) return readSync(descriptor, buffer, 0, buffer.length, position)
  return await new Promise((done, fail) => {
    read(descriptor, buffer, 0, buffer.length, position, (error, bytesRead) =>
      error ? fail(error) : done(bytesRead),
    )
  })
}

/** Writes all of a buffer at a position of a file; the system may take it in pieces. */
export async function writeAt(descriptor: number, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const left = bytes.length - done
    done +=
      left < AT_ONCE_BYTES
        ? writeSync(descriptor, bytes, done, left, position + done)
        : await new Promise<number>((taken, fail) => {
            write(descriptor, bytes, done, left, position + done, (error, written) =>
              error ? fail(error) : taken(written),
            )
          })
  }
}

/** Resolves once a file's bytes are on the disk; `data` leaves out what reading them back does not need. */
export function sync(descriptor: number, what: 'all' | 'data' = 'all'): Promise<void> {
  return new Promise((done, fail) => {
    const settle = (error: NodeJS.ErrnoException | null): void => (error ? fail(error) : done())
    if (what === 'all') fsync(descriptor, settle)
    else fdatasync(descriptor, settle)
  })
}

/** Removes a file; one that is gone already is fine. */
export function removeFile(path: string): void {
  try {
    unlinkSync(path)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
  }
}

/** Creates a file with a text; false when there is one already. */
export function createText(path: string, text: string): boolean {
  try {
    writeFileSync(path, text, { flag: 'wx' })
    return true
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false
    throw error
  }
}

/** Opens a file for reading, lends it, and closes it. */
export async function withOpen<T>(path: string, use: (descriptor: number) => Promise<T>): Promise<T> {
  const descriptor = openSync(path, 'r')
  try {
    return await use(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
