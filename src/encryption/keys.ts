import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { ConductorError } from '../errors.js'
import { formatPublicKey, keyIdOf } from '../protocol/encryption/public-key.js'
import { publicBytesOf } from '../protocol/encryption/sealer.js'

/** A pair of keys: results are encrypted for the one and read with the other. */
export interface EncryptionKeys {
  /** One word, `x25519:…`; no secret. */
  readonly publicKey: string
  /** PKCS #8 in PEM. Whoever has it can read every result that was encrypted for the public key, and nobody can without. */
  readonly privateKey: string
  /** What results say they are encrypted for, 16 hex digits. */
  readonly keyId: string
}

/** A private key ready for use. */
export interface PrivateKey {
  readonly id: string
  readonly key: KeyObject
  readonly publicBytes: Buffer
}

const pemPattern = /-----BEGIN ([A-Z ]+)-----[\s\S]*?-----END \1-----/g

/** Makes a new pair of keys for {@link EncryptionOptions}. */
export function generateEncryptionKeys(): EncryptionKeys {
  const pair = generateKeyPairSync('x25519')
  const publicBytes = publicBytesOf(pair.publicKey)
  return {
    publicKey: formatPublicKey(publicBytes),
    privateKey: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    keyId: keyIdOf(publicBytes),
  }
}

/** The public key that goes with a private one, given as PEM. Throws `INVALID_OPTION` for anything else. */
export function encryptionPublicKey(privateKey: string): string {
  const [first, ...more] = readPrivateKeys('private key', privateKey)
  if (first === undefined || more.length > 0) {
    throw new ConductorError('INVALID_OPTION', 'private key must be one key')
  }
  return formatPublicKey(first.publicBytes)
}

/** Reads the private keys in a text, at least one; throws `INVALID_OPTION`, without repeating any of it, for anything else. */
export function readPrivateKeys(what: string, text: string): PrivateKey[] {
  // Variables often have their line breaks written out.
  const blocks = text.replaceAll('\\n', '\n').match(pemPattern) ?? []
  if (blocks.length === 0) throw refusal(what)
  return blocks.map((pem) => {
    let key: KeyObject
    try {
      key = createPrivateKey(pem)
    } catch {
      // The library's own words may tell of the key.
      throw refusal(what)
    }
    if (key.asymmetricKeyType !== 'x25519') throw refusal(what)
    const publicBytes = publicBytesOf(key)
    return { id: keyIdOf(publicBytes), key, publicBytes }
  })
}

function refusal(what: string): ConductorError {
  return new ConductorError('INVALID_OPTION', `${what} must be an X25519 private key in PEM, unencrypted`)
}
