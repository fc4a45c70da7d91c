import type { FileHandle } from 'node:fs/promises'
import { systemCode } from '../../files/system-code.js'

/** Shorter than what a conductor gives a supervisor whose command it has stopped. */
const PATIENCE_MS = 4_000
const LOOK_EVERY_MS = 50
const FULL: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT', 'NO_SPACE'])

/** Tries again while the disk is full, since whatever fills it may be done soon; rejects as the last try did. */
export async function waitForRoom<T>(write: () => Promise<T>, patienceMs = PATIENCE_MS): Promise<T> {
  for (let waitedMs = 0; ; waitedMs += LOOK_EVERY_MS) {
    try {
      return await write()
    } catch (error) {
      if (!FULL.has(systemCode(error)) || waitedMs >= patienceMs) throw error
    }
    await new Promise<void>((done) => setTimeout(done, LOOK_EVERY_MS))
  }
}

/** How much of what was to be appended the disk took, and why no more. */
export interface Appended {
  readonly sizeBytes: number
  readonly error?: unknown
}

/** Appends with no hole and nothing twice where a full disk came in between; never rejects. */
export async function append(file: FileHandle, bytes: Uint8Array, patienceMs?: number): Promise<Appended> {
  let at = 0
  try {
    while (at < bytes.length) {
      const rest = bytes.subarray(at)
      at += (await waitForRoom(() => file.write(rest), patienceMs)).bytesWritten
    }
  } catch (error) {
    return { sizeBytes: at, error }
  }
  return { sizeBytes: at }
}
