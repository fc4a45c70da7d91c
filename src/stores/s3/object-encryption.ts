import type { S3ObjectOptions } from './object-options.js'

/** What a store says of how it encrypted an object, in its answer to a write and to `HEAD`. */
export interface EncryptionAnswer {
  readonly ServerSideEncryption?: string | undefined
  readonly SSEKMSKeyId?: string | undefined
}

/**
 * Says how an object falls short of the encryption that its location is configured with; `undefined` where it does not, or
 * where nothing is configured. The store's own word is all there is to go by:
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/serv-side-encryption.html
 */
export function encryptionProblem(
  { sse, kmsKeyId }: S3ObjectOptions,
  { ServerSideEncryption: by, SSEKMSKeyId: keyId }: EncryptionAnswer,
): string | undefined {
  if (sse === undefined) return undefined
  const wanted = sse === 'bucket' ? "encryption by the bucket's default" : sse
  if (by === undefined) return `not encrypted by the store, where ${wanted} is configured`
  // Twice under a KMS key is no less than once.
  const isKind = sse === 'bucket' || by === sse || (sse === 'aws:kms' && by === 'aws:kms:dsse')
  if (!isKind) return `encrypted by ${by}, where ${wanted} is configured`
  if (kmsKeyId === undefined || isSameKey(kmsKeyId, keyId)) return undefined
  return `encrypted by ${by} with ${keyId === undefined ? 'no KMS key' : `the key ${keyId}`}, where the key ${kmsKeyId} is configured`
}

/** The answer names a key by its ARN, whatever it was asked for by; what an alias stands for only KMS knows. */
function isSameKey(wanted: string, answered: string | undefined): boolean {
  if (answered === undefined) return false
  return wanted === answered || answered.endsWith(`:key/${wanted}`) || /(^|:)alias\//.test(wanted)
}
