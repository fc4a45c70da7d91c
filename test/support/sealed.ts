import { decryptChunks } from '../../src/encryption/decrypt-chunks.js'
import { Decryptor } from '../../src/encryption/decryptor.js'
import { type EncryptionKeys, generateEncryptionKeys, readPrivateKeys } from '../../src/encryption/keys.js'
import { parsePublicKey } from '../../src/protocol/encryption/public-key.js'
import { contextOf } from '../../src/protocol/encryption/sealed-format.js'
import { formatSealedType } from '../../src/protocol/encryption/sealed-type.js'
import { Sealer } from '../../src/protocol/encryption/sealer.js'
import type { ResultRecord } from '../../src/protocol/record.js'
import { recordFor, type SeedSpec } from './records.js'

/** A pair of keys with what reads by it. */
export interface TestKeys extends EncryptionKeys {
  readonly decryptor: Decryptor
}

/** Makes a pair. */
export function makeKeys(): TestKeys {
  const keys = generateEncryptionKeys()
  return { ...keys, decryptor: new Decryptor(readPrivateKeys('key', keys.privateKey)) }
}

/** Encrypts content as a persister does, which hands it over in pieces of any size. */
export function seal(
  keys: EncryptionKeys,
  taskId: string,
  name: string,
  content: Iterable<Uint8Array>,
): Buffer {
  const sealer = new Sealer(parsePublicKey('key', keys.publicKey), contextOf(taskId, name))
  const parts = [sealer.header]
  for (const piece of content) parts.push(...sealer.add(piece))
  return Buffer.concat([...parts, ...sealer.finish()])
}

/** Decrypts what comes in pieces of any size, as a reader does. */
export async function open(keys: TestKeys, result: string, sealed: Iterable<Uint8Array>): Promise<Buffer> {
  const pieces = (async function* () {
    yield* sealed
  })()
  const parts: Uint8Array[] = []
  for await (const part of decryptChunks(pieces, keys.decryptor, result)) parts.push(part)
  return Buffer.concat(parts)
}

/** An encrypted result and its record. */
export function sealedResult(
  keys: EncryptionKeys,
  spec: SeedSpec,
  content: Uint8Array | string,
): { readonly record: ResultRecord; readonly body: Buffer } {
  const body = seal(keys, spec.taskId, spec.name, [Buffer.from(content)])
  const contentType = formatSealedType({ keyId: keys.keyId, contentType: spec.contentType ?? 'text/plain' })
  return { record: recordFor({ ...spec, contentType }, body), body }
}
