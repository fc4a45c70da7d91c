import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { ConductorError } from '../../errors.js'
import { KEY_ID_BYTES, PUBLIC_KEY_BYTES } from './sealed-format.js'

const PREFIX = 'x25519:'

/** A key that results are encrypted for. */
export interface PublicKey {
  /** 16 hex digits. */
  readonly id: string
  readonly bytes: Buffer
  readonly key: KeyObject
}

/** Names a public key: the first digits of its SHA-256. */
export function keyIdOf(publicKey: Uint8Array): string {
  return createHash('sha256')
    .update(publicKey)
    .digest('hex')
    .slice(0, 2 * KEY_ID_BYTES)
}

/** A public key as one word: `x25519:` and 43 characters of base64url. */
export function formatPublicKey(publicKey: Uint8Array): string {
  return `${PREFIX}${Buffer.from(publicKey).toString('base64url')}`
}

/** An X25519 key out of its 32 bytes. */
export function importPublicKey(bytes: Uint8Array): KeyObject {
  const x = Buffer.from(bytes).toString('base64url')
  return createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' })
}

/** Reads such a word; throws `INVALID_OPTION` for anything else, without repeating it: it could be a private key by mistake. */
export function parsePublicKey(what: string, text: string): PublicKey {
  const encoded = text.trim()
  const bytes = Buffer.from(encoded.slice(PREFIX.length), 'base64url')
  if (bytes.length !== PUBLIC_KEY_BYTES || formatPublicKey(bytes) !== encoded) {
    throw new ConductorError('INVALID_OPTION', `${what} must be a public key: "x25519:" and 43 characters`)
  }
  return { id: keyIdOf(bytes), bytes, key: importPublicKey(bytes) }
}
