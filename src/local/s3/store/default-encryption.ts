import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { syncFolder } from './record-file.js'
import type { ObjectAttributes } from './records.js'

const FILE = 'encryption.json'

/** What a bucket does with objects that do not say how they are to be encrypted. */
export interface DefaultEncryption {
  readonly algorithm: 'AES256' | 'aws:kms' | 'aws:kms:dsse'
  readonly kmsKeyId?: string
  /** Whether KMS is asked once for the bucket rather than for each object. */
  readonly bucketKey: boolean
}

/** What every bucket does: https://docs.aws.amazon.com/AmazonS3/latest/userguide/default-encryption-faq.html */
export const SSE_S3: DefaultEncryption = { algorithm: 'AES256', bucketKey: false }

/** The headers by which an object tells that it was encrypted so. */
function encryptionHeaders({ algorithm, kmsKeyId, bucketKey }: DefaultEncryption): Record<string, string> {
  return {
    'x-amz-server-side-encryption': algorithm,
    ...(kmsKeyId === undefined ? {} : { 'x-amz-server-side-encryption-aws-kms-key-id': kmsKeyId }),
    ...(bucketKey && algorithm !== 'AES256'
      ? { 'x-amz-server-side-encryption-bucket-key-enabled': 'true' }
      : {}),
  }
}

/** An object's attributes with the bucket's default where the request did not ask for any encryption. */
export function withDefault(attributes: ObjectAttributes, fallback: DefaultEncryption): ObjectAttributes {
  if (attributes.encryption['x-amz-server-side-encryption'] !== undefined) return attributes
  return { ...attributes, encryption: { ...attributes.encryption, ...encryptionHeaders(fallback) } }
}

/** Reads a bucket's default out of its folder. */
export async function readDefaultEncryption(folder: string): Promise<DefaultEncryption> {
  const text = await readFile(join(folder, FILE), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  return text === undefined ? SSE_S3 : (JSON.parse(text) as DefaultEncryption)
}

/** Keeps a bucket's default in its folder. */
export async function writeDefaultEncryption(folder: string, encryption: DefaultEncryption): Promise<void> {
  const path = join(folder, FILE)
  await writeFile(`${path}.tmp`, JSON.stringify(encryption), { flush: true })
  await rename(`${path}.tmp`, path)
  await syncFolder(folder)
}
