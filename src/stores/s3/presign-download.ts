import { GetObjectCommand } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { ConductorError } from '../../errors.js'
import type { UrlOptions } from '../result-store.js'
import { mapS3Error } from './map-s3-error.js'
import type { S3Location } from './s3-location.js'

/** A link to an object that anybody can follow for a while; seven days are the most that S3 signs for. */
export async function presignDownload(
  at: S3Location,
  objectKey: string,
  { expiresInSeconds = 3600, filename, signal }: UrlOptions,
): Promise<string> {
  signal?.throwIfAborted()
  if (!Number.isInteger(expiresInSeconds) || expiresInSeconds < 1 || expiresInSeconds > 604_800) {
    throw new ConductorError(
      'INVALID_OPTION',
      `expiresInSeconds must be a whole number from 1 to 604800 (got ${expiresInSeconds})`,
    )
  }
  const command = new GetObjectCommand({
    Bucket: at.bucket,
    Key: objectKey,
    ResponseContentDisposition: filename === undefined ? undefined : attachment(filename),
  })
  try {
    return await getSignedUrl(at.client, command, { expiresIn: expiresInSeconds })
  } catch (error) {
    throw mapS3Error(error, `presign s3://${at.bucket}/${objectKey}`, signal)
  }
}

// RFC 6266: an ASCII stand-in for old clients, and the real name percent-encoded.
function attachment(filename: string): string {
  // Half a character, which no header can hold, becomes U+FFFD.
  const whole = Buffer.from(filename).toString()
  const ascii = whole.replace(/[^\x20-\x7e]|["\\]/g, '_')
  const encoded = encodeURIComponent(whole).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`)
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`
}
