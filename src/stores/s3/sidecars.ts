import { PutObjectCommand } from '@aws-sdk/client-s3'
import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import { assertKey } from '../../protocol/key.js'
import { MAX_RECORD_BYTES, parseRecord } from '../../protocol/parse.js'
import type { ResultRecord } from '../../protocol/record.js'
import { s3ObjectKey, s3SidecarKey } from '../../protocol/s3-layout.js'
import { objectInput } from './object-options.js'
import { s3Call } from './s3-call.js'
import { readS3Document } from './s3-documents.js'
import type { S3Location } from './s3-location.js'

/** Reads the record that lies beside an object, as text that nobody has looked at; undefined when there is none. */
export async function readSidecar(
  at: S3Location,
  objectKey: string,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  return (await readS3Document(at, s3SidecarKey(objectKey), MAX_RECORD_BYTES, signal))?.text
}

/**
 * Stores the record of a result whose metadata does not fit into the object's own: before the object, so that whoever sees
 * that sees this. Never over another's: `EXISTS` unless the one there is of this very result.
 */
export async function putSidecar(
  at: S3Location,
  record: ResultRecord,
  { signal }: CallOptions = {},
): Promise<void> {
  assertKey(record.key)
  const objectKey = s3ObjectKey(at.prefix, record.key)
  const put = async (condition: { IfNoneMatch?: string }): Promise<void> => {
    const command = new PutObjectCommand({
      Bucket: at.bucket,
      Key: s3SidecarKey(objectKey),
      Body: `${JSON.stringify(record)}\n`,
      ContentType: 'application/json',
      ...condition,
      ...objectInput(at),
    })
    const doing = `put the record of s3://${at.bucket}/${objectKey}`
    await s3Call(doing, (options) => at.client.send(command, options), signal)
  }
  try {
    await put({ IfNoneMatch: '*' })
  } catch (error) {
    if (!isConductorError(error)) throw error
    if (error.code !== 'EXISTS' && error.code !== 'UNSUPPORTED') throw error
    const there = await readSidecar(at, objectKey, signal)
    if (there !== undefined && isRecordOf(there, record)) return
    // A store without conditions is looked at instead.
    if (error.code === 'EXISTS' || there !== undefined) throw error
    await put({})
  }
}

/** Whether a sidecar speaks of the same result: left by an attempt whose object never came, or came without our hearing of it. */
function isRecordOf(text: string, { sha256, created_at }: ResultRecord): boolean {
  try {
    const there = parseRecord(text)
    return there.sha256 === sha256 && there.created_at === created_at
  } catch (error) {
    if (isConductorError(error)) return false
    throw error
  }
}
