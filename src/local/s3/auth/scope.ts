import { S3Error, type S3ErrorCode } from '../errors.js'
import type { Scope } from './signer.js'

/** How far a signed time may be from the server's: S3 documents 15 minutes. */
export const maxSkewMs = 15 * 60_000

/** A `Credential` as it is written in headers, queries and forms. */
export interface ScopedKey {
  readonly accessKeyId: string
  readonly scope: Scope
}

/**
 * Takes `AKID/20130524/us-east-1/s3/aws4_request` apart and checks all but the key and the date.
 * Throws `malformed`, with the region S3 tells clients to use instead.
 */
export function parseCredential(text: string, region: string, malformed: S3ErrorCode): ScopedKey {
  const parts = text.split('/')
  const [terminator, service, given, date] = parts.reverse()
  const accessKeyId = parts.slice(4).reverse().join('/')
  if (!date || !given || !service || !terminator || accessKeyId === '' || !/^\d{8}$/.test(date)) {
    throw new S3Error(malformed, {
      message: 'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
    })
  }
  if (given !== region) {
    throw new S3Error(malformed, {
      message: `The authorization header is malformed; the region '${given}' is wrong; expecting '${region}'`,
      details: { Region: region },
    })
  }
  if (service !== 's3' || terminator !== 'aws4_request') {
    throw new S3Error(malformed, {
      message: `incorrect service "${service}" or terminator "${terminator}". This endpoint belongs to "s3".`,
    })
  }
  return { accessKeyId, scope: { date, region, service } }
}

/** Milliseconds since the epoch of `20130524T000000Z`; undefined for any other form. */
export function parseAmzDate(text: string): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text)
  if (match === null) return undefined
  const timeMs = Date.parse(`${match.slice(1, 4).join('-')}T${match.slice(4).join(':')}Z`)
  return Number.isNaN(timeMs) ? undefined : timeMs
}
