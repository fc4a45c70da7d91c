import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { Decryptor } from '../encryption/decryptor.js'
import { readPrivateKeys } from '../encryption/keys.js'
import { ConductorError } from '../errors.js'
import { parsePublicKey } from '../protocol/encryption/public-key.js'
import { ENV, type ResultsEnvironment } from '../protocol/environment.js'

/** Largest file that is taken for one of keys. */
const MAX_KEY_FILE_BYTES = 1 << 20

/** Keys that results are encrypted and read with; `generateEncryptionKeys()` makes them. */
export interface EncryptionOptions {
  /** Workers encrypt for it what they store from then on. Without it, they store in clear. @default `WORKER_RESULTS_ENCRYPTION_KEY` */
  readonly publicKey?: string | undefined
  /**
   * Read results; PEM each, in any order. Keep old ones for as long as there are results for them. They never leave this process.
   * @default those in `WORKER_RESULTS_DECRYPTION_KEY`, else in the file that `WORKER_RESULTS_DECRYPTION_KEY_FILE` names
   */
  readonly privateKeys?: readonly string[] | undefined
}

/** The keys, checked. */
export interface ResolvedEncryption {
  readonly publicKey: string | undefined
  readonly decryptor: Decryptor
}

/** @internal */
export const encryptionSchema = z.strictObject({
  publicKey: z.string().optional(),
  privateKeys: z.array(z.string()).readonly().optional(),
})

/** Reads the keys, given or from the environment; undefined when there are none. Throws `INVALID_OPTION`, repeating no key. */
export function resolveEncryption(
  options: EncryptionOptions | null | undefined,
  env: ResultsEnvironment,
): ResolvedEncryption | undefined {
  if (options === null) return undefined
  const publicKey = options?.publicKey ?? env.encryptionKey
  const privateKeys =
    options?.privateKeys?.flatMap((text, i) => readPrivateKeys(`encryption.privateKeys.${i}`, text)) ??
    readEnvironmentKeys(env)
  if (publicKey === undefined && privateKeys === undefined) return undefined
  if (publicKey !== undefined) {
    parsePublicKey(options?.publicKey === undefined ? ENV.encryptionKey : 'encryption.publicKey', publicKey)
  }
  return { publicKey: publicKey?.trim(), decryptor: new Decryptor(privateKeys ?? []) }
}

function readEnvironmentKeys({
  decryptionKey,
  decryptionKeyFile,
}: ResultsEnvironment): ReturnType<typeof readPrivateKeys> | undefined {
  if (decryptionKey !== undefined) return readPrivateKeys(ENV.decryptionKey, decryptionKey)
  if (decryptionKeyFile === undefined) return undefined
  return readPrivateKeys(ENV.decryptionKeyFile, readKeyFile(decryptionKeyFile, ENV.decryptionKeyFile))
}

/** Reads a file of keys as text; throws `INVALID_OPTION` when it cannot be read. */
export function readKeyFile(path: string, what: string): string {
  try {
    const text = readFileSync(path, 'utf8')
    if (text.length <= MAX_KEY_FILE_BYTES) return text
  } catch (cause) {
    throw new ConductorError('INVALID_OPTION', `${what}: ${path} cannot be read`, { cause })
  }
  throw new ConductorError('INVALID_OPTION', `${what}: ${path} is too large for a file of keys`)
}
