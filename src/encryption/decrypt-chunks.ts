import {
  CHUNK_BYTES,
  contentSize,
  DIGEST_BYTES,
  HEADER_BYTES,
  SEALED_CHUNK_BYTES,
} from '../protocol/encryption/sealed-format.js'
import { type ContentOpener, type Decryptor, damaged } from './decryptor.js'

/**
 * The content of an encrypted result, as its bytes come. Each piece has been authenticated, and the last one comes only when the
 * source has ended well just there.
 */
export async function* decryptChunks(
  source: AsyncIterable<Uint8Array>,
  decryptor: Decryptor,
  result: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  let opener: ContentOpener | undefined
  let index = 0
  const buffer = Buffer.allocUnsafeSlow(SEALED_CHUNK_BYTES)
  let filled = 0
  // Of what is decrypted, the last chunk is held back: the digest behind the content may begin in it.
  let held: Buffer | undefined
  for await (const bytes of source) {
    for (let at = 0; at < bytes.length; ) {
      const wanted = opener === undefined ? HEADER_BYTES : SEALED_CHUNK_BYTES
      if (filled === wanted) {
        // More follows, so this is not the last.
        if (opener === undefined) opener = decryptor.open(result, buffer.subarray(0, HEADER_BYTES))
        else {
          if (held !== undefined) yield held
          held = opener.open(buffer, index++, false)
        }
        filled = 0
        continue
      }
      const taken = Math.min(wanted - filled, bytes.length - at)
      buffer.set(bytes.subarray(at, at + taken), filled)
      filled += taken
      at += taken
    }
  }
  if (opener === undefined) throw damaged(result)
  const last = opener.open(buffer.subarray(0, filled), index, true)
  const rest = held === undefined ? last : Buffer.concat([held, last])
  if (rest.length < DIGEST_BYTES) throw damaged(result)
  if (rest.length > DIGEST_BYTES) yield rest.subarray(0, rest.length - DIGEST_BYTES)
}

/** How to read an encrypted result's bytes from one of them on; leaving the loop early ends it. */
export type ReadFrom = (offset: number) => AsyncIterable<Uint8Array>

/**
 * SHA-256 of an encrypted result's content, as its writer says: 64 hex digits. Reads the header and the last one or two chunks
 * only, which authenticate each other but not what lies between.
 */
export async function readContentDigest(
  readFrom: ReadFrom,
  decryptor: Decryptor,
  { key, size }: { readonly key: string; readonly size: number },
): Promise<string> {
  const contentBytes = contentSize(size)
  if (contentBytes === undefined) throw damaged(key)
  const first = Math.floor(contentBytes / CHUNK_BYTES)
  const header = await readBytes(readFrom(0), HEADER_BYTES)
  const opener = decryptor.open(key, header)
  const tailAt = HEADER_BYTES + first * SEALED_CHUNK_BYTES
  const tail = await readBytes(readFrom(tailAt), size - tailAt)
  const parts: Buffer[] = []
  for (let at = 0, index = first; at < tail.length; at += SEALED_CHUNK_BYTES, index++) {
    const chunk = tail.subarray(at, at + SEALED_CHUNK_BYTES)
    parts.push(opener.open(chunk, index, at + SEALED_CHUNK_BYTES >= tail.length))
  }
  return Buffer.concat(parts).subarray(-DIGEST_BYTES).toString('hex')
}

/** So many bytes of a source, or fewer where it has no more. */
async function readBytes(source: AsyncIterable<Uint8Array>, wanted: number): Promise<Buffer> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const bytes of source) {
    parts.push(bytes)
    length += bytes.length
    if (length >= wanted) break
  }
  return Buffer.concat(parts).subarray(0, wanted)
}
