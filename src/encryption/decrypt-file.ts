import type { FileHandle } from 'node:fs/promises'
import {
  CHUNK_BYTES,
  contentSize,
  HEADER_BYTES,
  SEALED_CHUNK_BYTES,
} from '../protocol/encryption/sealed-format.js'
import { writeAll } from '../streams/write-all.js'
import { type Decryptor, damaged } from './decryptor.js'

/** How much is read at once: whole chunks. */
const BATCH_BYTES = 32 * SEALED_CHUNK_BYTES

/**
 * Turns a file that holds a whole encrypted result into its content, in place; resolves with that one's size. A chunk is written
 * where it and those before it have been read already. When it rejects with `INTEGRITY`, the file holds neither of the two.
 */
export async function decryptFile(
  file: FileHandle,
  sealedBytes: number,
  decryptor: Decryptor,
  result: string,
): Promise<number> {
  const size = contentSize(sealedBytes)
  if (size === undefined) throw damaged(result)
  const opener = decryptor.open(result, await readFully(file, Buffer.alloc(HEADER_BYTES), 0))
  const read = (buffer: Buffer, at: number): Promise<Buffer> =>
    readFully(file, buffer.subarray(0, Math.max(0, Math.min(buffer.length, sealedBytes - at))), at)
  const bufferBytes = Math.min(BATCH_BYTES, sealedBytes)
  let [buffer, spare] = [Buffer.allocUnsafeSlow(bufferBytes), Buffer.allocUnsafeSlow(bufferBytes)]
  let batch = await read(buffer, HEADER_BYTES)
  for (let at = HEADER_BYTES, index = 0; at < sealedBytes; ) {
    if (batch.length === 0) throw damaged(result)
    const parts: Buffer[] = []
    const writeAt = index * CHUNK_BYTES
    for (let i = 0; i < batch.length; i += SEALED_CHUNK_BYTES) {
      const last = at + i + SEALED_CHUNK_BYTES >= sealedBytes
      parts.push(opener.open(batch.subarray(i, i + SEALED_CHUNK_BYTES), index++, last))
    }
    at += batch.length
    // What is written ends before what is read begins. Both are over before anything is thrown, since the file is closed then.
    const [ahead, written] = await Promise.allSettled([read(spare, at), writeAll(file, parts, writeAt)])
    if (written.status === 'rejected') throw written.reason
    if (ahead.status === 'rejected') throw ahead.reason
    batch = ahead.value
    ;[buffer, spare] = [spare, buffer]
  }
  await file.truncate(size)
  return size
}

/** Fills the buffer as far as the file goes. */
async function readFully(file: FileHandle, buffer: Buffer, position: number): Promise<Buffer> {
  let done = 0
  while (done < buffer.length) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return buffer.subarray(0, done)
}
