import { createDecipheriv, diffieHellman } from 'node:crypto'
import { ConductorError } from '../errors.js'
import { importPublicKey } from '../protocol/encryption/public-key.js'
import {
  CONTENT_KEY_BYTES,
  chunkNonce,
  chunksKey,
  contextOf,
  decodeHeader,
  HEADER_BYTES,
  MAGIC,
  type SealedHeader,
  TAG_BYTES,
  WRAPPING_NONCE,
  wrappingData,
  wrappingKey,
} from '../protocol/encryption/sealed-format.js'
import { splitKey } from '../protocol/key.js'
import type { PrivateKey } from './keys.js'

/** Decrypts the chunks of one result. */
export class ContentOpener {
  readonly #result: string
  readonly #key: Uint8Array

  constructor(result: string, key: Uint8Array) {
    this.#result = result
    this.#key = key
  }

  /** Throws `INTEGRITY` unless it is just this chunk of just this result, counted from 0, and the last one if it is said to be. */
  open(chunk: Uint8Array, index: number, last: boolean): Buffer {
    if (chunk.length < TAG_BYTES) throw damaged(this.#result)
    const at = chunk.length - TAG_BYTES
    const cipher = createDecipheriv('aes-256-gcm', this.#key, chunkNonce(index, last), {
      authTagLength: TAG_BYTES,
    })
    cipher.setAuthTag(chunk.subarray(at))
    const content = cipher.update(chunk.subarray(0, at))
    try {
      cipher.final()
    } catch {
      throw damaged(this.#result)
    }
    return content
  }
}

/** Holds private keys, and opens what was encrypted for one of them. */
export class Decryptor {
  readonly #keys: ReadonlyMap<string, PrivateKey>

  constructor(keys: readonly PrivateKey[]) {
    this.#keys = new Map(keys.map((key) => [key.id, key]))
  }

  /** Whether it has the private key of that id. */
  has(keyId: string): boolean {
    return this.#keys.has(keyId)
  }

  /**
   * Opens a result by its header. Throws `INTEGRITY` when that is not the header of an encrypted result of this task and name,
   * `DECRYPTION_KEY_MISSING` when it is for another key, and `UNSUPPORTED` when it is of another version.
   */
  open(result: string, bytes: Buffer): ContentOpener {
    const begins = (magic: Buffer): boolean => bytes.subarray(0, magic.length).equals(magic)
    if (bytes.length !== HEADER_BYTES || !begins(MAGIC.subarray(0, -1))) {
      throw new ConductorError('INTEGRITY', `${result} is not encrypted, although it says so`)
    }
    if (!begins(MAGIC)) {
      throw new ConductorError('UNSUPPORTED', `${result} is encrypted in a form that is not known here`)
    }
    const header = decodeHeader(bytes)
    const key = this.#keys.get(header.keyId)
    if (key === undefined) throw keyMissing(result, header.keyId)
    const { taskId, name } = splitKey(result)
    const context = contextOf(taskId, name)
    return new ContentOpener(result, chunksKey(unwrap(result, header, key, context), bytes, context))
  }
}

/** Says that nobody here has the key. */
export function keyMissing(result: string, keyId: string | undefined): ConductorError {
  const which = keyId === undefined ? 'a key that it does not name' : `the key ${keyId}`
  return new ConductorError(
    'DECRYPTION_KEY_MISSING',
    `${result} is encrypted for ${which}, which is not among encryption.privateKeys`,
  )
}

/** Says that something is not what was encrypted. */
export function damaged(result: string): ConductorError {
  return new ConductorError(
    'INTEGRITY',
    `${result} cannot be decrypted: it was changed, cut off, or encrypted for another task or name`,
  )
}

function unwrap(result: string, header: SealedHeader, key: PrivateKey, context: Uint8Array): Buffer {
  const { keyId, ephemeralKey, wrappedKey } = header
  try {
    // Fails for a point that would make the secret known: https://www.rfc-editor.org/rfc/rfc7748#section-6.1
    const secret = diffieHellman({ privateKey: key.key, publicKey: importPublicKey(ephemeralKey) })
    const wrapping = wrappingKey(secret, ephemeralKey, key.publicBytes)
    const cipher = createDecipheriv('aes-256-gcm', wrapping, WRAPPING_NONCE, { authTagLength: TAG_BYTES })
    cipher.setAAD(wrappingData(keyId, context))
    cipher.setAuthTag(wrappedKey.subarray(CONTENT_KEY_BYTES))
    return Buffer.concat([cipher.update(wrappedKey.subarray(0, CONTENT_KEY_BYTES)), cipher.final()])
  } catch {
    // What the library says of it is that it failed.
    throw damaged(result)
  }
}
