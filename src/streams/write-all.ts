import type { FileHandle } from 'node:fs/promises'

/** Buffers that the system takes in one call. */
const MAX_BUFFERS = 1024

/** Writes chunks to a file from a position on, many in one call, however often the system takes fewer bytes than it is given. */
export async function writeAll(
  file: FileHandle,
  chunks: readonly Uint8Array[],
  position: number,
): Promise<void> {
  let at = position
  for (let left = chunks; left.length > 0; ) {
    const { bytesWritten } = await file.writev(left.slice(0, MAX_BUFFERS), at)
    at += bytesWritten
    left = dropBytes(left, bytesWritten)
  }
}

/** What is left of chunks after their first bytes. */
function dropBytes(chunks: readonly Uint8Array[], count: number): Uint8Array[] {
  let left = count
  return chunks.flatMap((chunk) => {
    const taken = Math.min(left, chunk.length)
    left -= taken
    return taken === chunk.length ? [] : [chunk.subarray(taken)]
  })
}
