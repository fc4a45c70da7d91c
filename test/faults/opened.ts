import { buffer } from 'node:stream/consumers'
import { decryptChunks } from '../../src/encryption/decrypt-chunks.js'
import type { Decryptor } from '../../src/encryption/decryptor.js'
import { MAGIC } from '../../src/protocol/encryption/sealed-format.js'
import type { Copy } from './copies.js'

/** Whether its bytes are encrypted. */
export function isSealed({ bytes }: Copy): boolean {
  return bytes.subarray(0, MAGIC.length).equals(MAGIC)
}

/** A copy with the content of what is encrypted in the place of its bytes; the digest stays that of what is stored. */
export async function openCopy(copy: Copy, decryptor: Decryptor): Promise<Copy> {
  if (!isSealed(copy)) return copy
  try {
    return { ...copy, bytes: await buffer(decryptChunks(one(copy.bytes), decryptor, copy.key)) }
  } catch {
    // Then its content is not what was handed over, which whoever compares it says.
    return copy
  }
}

async function* one(bytes: Buffer): AsyncGenerator<Uint8Array> {
  yield bytes
}
