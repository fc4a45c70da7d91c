import type { HeadObjectCommandOutput } from '@aws-sdk/client-s3'
import { assertKey, parseTimestamp } from '../../protocol/key.js'
import { parseJsonObject } from '../../protocol/parse.js'
import type { JsonObject } from '../../protocol/record.js'
import type { ResultDescription } from '../result-store.js'

const sha256Pattern = /^[0-9a-f]{64}$/

/** What both HEAD and GET tell of an object. */
export type ObjectHead = Pick<HeadObjectCommandOutput, 'ContentLength' | 'ContentType' | 'Metadata'>

/** The user's metadata as the object carries it; absent or empty when it lies in the sidecar. */
export function metadataOf({ Metadata }: ObjectHead): string | undefined {
  return Metadata?.metadata === '' ? undefined : Metadata?.metadata
}

/** What an object says of its result, which anybody may have written: what is wrong with it is its `problem`. */
export function describeHead(key: string, head: ObjectHead): ResultDescription {
  const meta = head.Metadata ?? {}
  const parts = assertKey(key)
  let metadata: JsonObject = {}
  let problem: string | undefined
  const text = metadataOf(head)
  if (text !== undefined) {
    const parsed = parseJsonObject(text)
    if (parsed === undefined) problem = 'metadata is not a JSON object'
    else metadata = parsed
  }
  const sha256 = meta.sha256 !== undefined && sha256Pattern.test(meta.sha256) ? meta.sha256 : undefined
  if (sha256 === undefined) problem = 'the object carries no SHA-256 digest'
  const created = new Date(meta['created-at'] ?? Number.NaN)
  return {
    key,
    size: head.ContentLength ?? 0,
    sha256,
    contentType: head.ContentType ?? 'application/octet-stream',
    metadata,
    createdAt: Number.isNaN(created.getTime()) ? (parseTimestamp(parts.timestamp) ?? new Date(0)) : created,
    archive: meta.archive === 'tar.gz' ? 'tar.gz' : null,
    problem,
  }
}
