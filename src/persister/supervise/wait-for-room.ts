import type { FileHandle } from 'node:fs/promises'
import { systemCode } from '../../files/system-code.js'

/** Shorter than what a conductor gives a supervisor whose command it has stopped. */
const PATIENCE_MS = 4_000
const LOOK_EVERY_MS = 50
const FULL: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT', 'NO_SPACE'])

/** Tries again while the disk is full, since whatever fills it may be done soon; rejects as the last try did. */
export async function waitForRoom<T>(write: () => Promise<T>): Promise<T> {
  for (let waitedMs = 0; ; waitedMs += LOOK_EVERY_MS) {
    try {
      return await write()
    } catch (error) {
      if (!FULL.has(systemCode(error)) || waitedMs >= PATIENCE_MS) throw error
    }
    await new Promise<void>((done) => setTimeout(done, LOOK_EVERY_MS))
  }
}

/** Appends all of it, with no hole and nothing twice where a full disk came in between. */
export async function append(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const rest = bytes.subarray(at)
    at += (await waitForRoom(() => file.write(rest))).bytesWritten
  }
}
