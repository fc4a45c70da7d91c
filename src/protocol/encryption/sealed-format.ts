import { hkdfSync } from 'node:crypto'

/*
 * Form of an encrypted result, version 1:
 *
 *   magic 16 | key id 8 | ephemeral X25519 public key 32 | content key, wrapped 48 | chunks
 *
 * The content key is random, for one result. It is wrapped with AES-256-GCM under a key that HKDF-SHA-256 derives from an X25519
 * exchange of the ephemeral key with the reader's. What is encrypted is the content followed by its SHA-256, in chunks of 64 KiB
 * with AES-256-GCM after the STREAM construction (https://eprint.iacr.org/2015/189): a chunk's nonce is its number and whether it
 * is the last, so that none can be left out, repeated, moved or added. The chunks' key is derived from the content key with the
 * whole header and the context, so that a header fits no other's chunks.
 *
 * The context is `{task_id}/{name}`: under another task or name a result does not open. Its timestamp is no part of it, since a
 * key may move on by seconds after the result was encrypted and left the sandbox's hands, and neither is what a store may lose,
 * such as metadata. So whoever can write to the bucket can put one result in the place of another of the same task and name; that
 * it is another one, only the digest in the sealed task's manifest tells. Nor does encryption say who wrote: anybody can encrypt
 * for a public key.
 */

/** Begins every encrypted result; its last character is the version. */
export const MAGIC = Buffer.from('stu-conductor/e1', 'latin1')
export const KEY_ID_BYTES = 8
export const PUBLIC_KEY_BYTES = 32
export const CONTENT_KEY_BYTES = 32
export const TAG_BYTES = 16
/** Of a result's content, encrypted behind it: for telling whether a file is the same without reading all of the result. */
export const DIGEST_BYTES = 32
const WRAPPED_KEY_BYTES = CONTENT_KEY_BYTES + TAG_BYTES
/** Where the chunks begin. */
export const HEADER_BYTES = MAGIC.length + KEY_ID_BYTES + PUBLIC_KEY_BYTES + WRAPPED_KEY_BYTES
/** Bytes of a chunk before it is encrypted; the last one has as many or fewer. */
export const CHUNK_BYTES = 64 * 1024
/** The same afterwards. */
export const SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
/** AES-GCM's own nonce length. */
const NONCE_BYTES = 12
const MAX_CHUNKS = 2 ** 32

/** What a header consists of. */
export interface SealedHeader {
  /** Hex digits. */
  readonly keyId: string
  readonly ephemeralKey: Buffer
  readonly wrappedKey: Buffer
}

/** What ties an encrypted result to its place. */
export function contextOf(taskId: string, name: string): Buffer {
  // No task id holds a slash.
  return Buffer.from(`${taskId}/${name}`, 'utf8')
}

/** Bytes that content of a size takes encrypted. */
export function sealedSize(contentBytes: number): number {
  const encrypted = contentBytes + DIGEST_BYTES
  return HEADER_BYTES + encrypted + Math.ceil(encrypted / CHUNK_BYTES) * TAG_BYTES
}

/** Bytes of content in an encrypted result of a size; `undefined` when none has that size. */
export function contentSize(sealedBytes: number): number | undefined {
  const chunks = Math.ceil((sealedBytes - HEADER_BYTES) / SEALED_CHUNK_BYTES)
  const contentBytes = sealedBytes - HEADER_BYTES - chunks * TAG_BYTES - DIGEST_BYTES
  return contentBytes >= 0 && sealedSize(contentBytes) === sealedBytes ? contentBytes : undefined
}

/** Puts a header together. */
export function encodeHeader({ keyId, ephemeralKey, wrappedKey }: SealedHeader): Buffer {
  return Buffer.concat([MAGIC, Buffer.from(keyId, 'hex'), ephemeralKey, wrappedKey])
}

/** Takes apart what has the length of a header; its magic is the caller's to check. */
export function decodeHeader(header: Buffer): SealedHeader {
  const keyAt = MAGIC.length + KEY_ID_BYTES
  const wrappedAt = keyAt + PUBLIC_KEY_BYTES
  return {
    keyId: header.toString('hex', MAGIC.length, keyAt),
    ephemeralKey: header.subarray(keyAt, wrappedAt),
    wrappedKey: header.subarray(wrappedAt, HEADER_BYTES),
  }
}

/** The key that wraps a content key, from the secret that both sides of the exchange come to. It is used once. */
export function wrappingKey(secret: Uint8Array, ephemeralKey: Uint8Array, publicKey: Uint8Array): Uint8Array {
  return derive(secret, Buffer.concat([ephemeralKey, publicKey]), 'stu-conductor/e1 wrapping key')
}

/** What is authenticated along with a wrapped content key, besides the two keys of the exchange. */
export function wrappingData(keyId: string, context: Uint8Array): Buffer {
  return Buffer.concat([MAGIC, Buffer.from(keyId, 'hex'), context])
}

/** The key of the chunks that follow a header. */
export function chunksKey(contentKey: Uint8Array, header: Uint8Array, context: Uint8Array): Uint8Array {
  return derive(contentKey, header, Buffer.concat([Buffer.from('stu-conductor/e1 chunks '), context]))
}

/** The nonce of a wrapped content key, whose key is used for nothing else. */
export const WRAPPING_NONCE = Buffer.alloc(NONCE_BYTES)

/** The nonce of a chunk, counted from 0. */
export function chunkNonce(index: number, last: boolean): Buffer {
  if (index >= MAX_CHUNKS) throw new RangeError(`more than ${MAX_CHUNKS} chunks`)
  const nonce = Buffer.alloc(NONCE_BYTES)
  nonce.writeUInt32BE(index, NONCE_BYTES - 5)
  nonce[NONCE_BYTES - 1] = last ? 1 : 0
  return nonce
}

function derive(secret: Uint8Array, salt: Uint8Array, info: string | Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, salt, info, CONTENT_KEY_BYTES))
}
