import { S3Error } from '../errors.js'
import type { WriteCondition } from '../store/bucket.js'
import type { ObjectRecord } from '../store/records.js'

type Fields = Readonly<Record<string, string>>

/** What `If-None-Match: *` and `If-Match` demand of the object that is about to be replaced. */
export function writeCondition(headers: Fields): WriteCondition {
  const ifNoneMatch = headers['if-none-match']
  const ifMatch = headers['if-match']
  if (ifNoneMatch !== undefined && ifNoneMatch !== '*') {
    throw new S3Error('NotImplemented', { details: { Header: 'If-None-Match' } })
  }
  return (current) => {
    if (ifNoneMatch !== undefined && current !== undefined) throw failed('If-None-Match')
    if (ifMatch === undefined) return
    if (current === undefined) throw new S3Error('NoSuchKey')
    if (!matches(ifMatch, current)) throw failed('If-Match')
  }
}

/** How a conditional read ends: with the object, or with `304 Not Modified`. Throws `PreconditionFailed`. */
export function readCondition(headers: Fields, object: ObjectRecord): 'send' | 'not-modified' {
  const unmodifiedSince = Date.parse(headers['if-unmodified-since'] ?? '')
  const modifiedSince = Date.parse(headers['if-modified-since'] ?? '')
  if (headers['if-match'] !== undefined) {
    if (!matches(headers['if-match'], object)) throw failed('If-Match')
  } else if (object.lastModifiedMs > unmodifiedSince) {
    throw failed('If-Unmodified-Since')
  }
  if (headers['if-none-match'] !== undefined) {
    return matches(headers['if-none-match'], object) ? 'not-modified' : 'send'
  }
  return object.lastModifiedMs <= modifiedSince ? 'not-modified' : 'send'
}

/** Like {@link readCondition}, for the source of a copy, where 304 is not an answer. */
export function copyCondition(headers: Fields, object: ObjectRecord): void {
  const prefix = 'x-amz-copy-source-'
  const conditions: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(`${prefix}if-`)) conditions[name.slice(prefix.length)] = value
  }
  if (readCondition(conditions, object) === 'not-modified') throw failed('x-amz-copy-source-If-None-Match')
}

function matches(list: string, { etag }: ObjectRecord): boolean {
  return list.split(',').some((item) => {
    const tag = item.trim()
    return tag === '*' || tag.replace(/^W\//, '').replaceAll('"', '') === etag
  })
}

function failed(condition: string): S3Error {
  return new S3Error('PreconditionFailed', { details: { Condition: condition } })
}
