import {
  createCipheriv,
  createHash,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type Hash,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import type { PublicKey } from './public-key.js'
import {
  CHUNK_BYTES,
  CONTENT_KEY_BYTES,
  chunkNonce,
  chunksKey,
  encodeHeader,
  WRAPPING_NONCE,
  wrappingData,
  wrappingKey,
} from './sealed-format.js'

/** The 32 bytes of an X25519 key's public half. */
export function publicBytesOf(key: KeyObject): Buffer {
  const publicKey = key.type === 'public' ? key : createPublicKey(key)
  return Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url')
}

/** Encrypts one content for a public key, piece by piece; nothing of what it holds can decrypt it again once it is gone. */
export class Sealer {
  /** Comes first. */
  readonly header: Buffer
  readonly #key: Uint8Array
  readonly #hash: Hash = createHash('sha256')
  readonly #chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES)
  #chunkBytes = 0
  #index = 0
  #digest: Buffer | undefined

  constructor(publicKey: PublicKey, context: Uint8Array) {
    const contentKey = randomBytes(CONTENT_KEY_BYTES)
    const ephemeral = generateKeyPairSync('x25519')
    const ephemeralKey = publicBytesOf(ephemeral.publicKey)
    const secret = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: publicKey.key })
    const key = wrappingKey(secret, ephemeralKey, publicKey.bytes)
    const cipher = createCipheriv('aes-256-gcm', key, WRAPPING_NONCE)
    cipher.setAAD(wrappingData(publicKey.id, context))
    const wrappedKey = Buffer.concat([cipher.update(contentKey), cipher.final(), cipher.getAuthTag()])
    this.header = encodeHeader({ keyId: publicKey.id, ephemeralKey, wrappedKey })
    this.#key = chunksKey(contentKey, this.header, context)
  }

  /** Takes the next bytes of the content; gives what is encrypted by then. */
  add(bytes: Uint8Array): Buffer[] {
    this.#hash.update(bytes)
    return this.#take(bytes)
  }

  /** The end of the content; gives the rest. */
  finish(): Buffer[] {
    this.#digest = this.#hash.digest()
    return [...this.#take(this.#digest), ...this.#seal(this.#chunk.subarray(0, this.#chunkBytes), true)]
  }

  /** SHA-256 of the content, once it has ended; 64 hex digits. */
  get sha256(): string | undefined {
    return this.#digest?.toString('hex')
  }

  /** A full chunk is kept until it is known not to be the last. */
  #take(bytes: Uint8Array): Buffer[] {
    const sealed: Buffer[] = []
    for (let at = 0; at < bytes.length; ) {
      if (this.#chunkBytes === CHUNK_BYTES) {
        sealed.push(...this.#seal(this.#chunk, false))
        this.#chunkBytes = 0
      }
      if (this.#chunkBytes === 0 && bytes.length - at > CHUNK_BYTES) {
        sealed.push(...this.#seal(bytes.subarray(at, at + CHUNK_BYTES), false))
        at += CHUNK_BYTES
        continue
      }
      const taken = Math.min(CHUNK_BYTES - this.#chunkBytes, bytes.length - at)
      this.#chunk.set(bytes.subarray(at, at + taken), this.#chunkBytes)
      this.#chunkBytes += taken
      at += taken
    }
    return sealed
  }

  #seal(chunk: Uint8Array, last: boolean): Buffer[] {
    const cipher = createCipheriv('aes-256-gcm', this.#key, chunkNonce(this.#index, last))
    this.#index += 1
    const sealed = cipher.update(chunk)
    // AES-GCM keeps nothing back: only its tag is left.
    cipher.final()
    return [sealed, cipher.getAuthTag()]
  }
}
