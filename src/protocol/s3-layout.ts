import { ConductorError } from '../errors.js'
import { byteLength, MAX_KEY_BYTES, RECORD_SUFFIX } from './key.js'
import type { JsonObject, ResultRecord } from './record.js'

/** S3's limit on user metadata, UTF-8 bytes of names and values: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html */
export const MAX_S3_METADATA_BYTES = 2048

/** Names of the user metadata a result may carry (`x-amz-meta-…`); a grant's policy admits exactly these. */
export const S3_METADATA_NAMES = ['task-id', 'name', 'sha256', 'created-at', 'archive', 'metadata'] as const

/**
 * Where a result lies in the bucket; throws `INVALID_OPTION` past S3's 1,024 bytes, also when it is only the name of the
 * sidecar it needs that is longer.
 */
export function s3ObjectKey(prefix: string, key: string, { sidecar = false } = {}): string {
  const whole = prefix === '' ? key : `${prefix}/${key}`
  const bytes = byteLength(sidecar ? s3SidecarKey(whole) : whole)
  if (bytes > MAX_KEY_BYTES) {
    throw new ConductorError(
      'INVALID_OPTION',
      `key with prefix${sidecar ? ` and ${RECORD_SUFFIX}` : ''} must be at most ${MAX_KEY_BYTES} bytes of UTF-8, has ${bytes}`,
    )
  }
  return whole
}

/** What all results of a task have in common, and no other task's: it ends in a slash. */
export function s3TaskPrefix(prefix: string, taskId: string): string {
  return prefix === '' ? `${taskId}/` : `${prefix}/${taskId}/`
}

/** Where a task's manifest lies: outside every worker's reach, since no task id starts with a dot. */
export function s3ManifestKey(prefix: string, taskId: string): string {
  return `${prefix === '' ? '' : `${prefix}/`}.tasks/${taskId}.json`
}

/** Where a conductor says that it is about to start a task's worker; as far out of workers' reach. */
export function s3IntentKey(prefix: string, taskId: string): string {
  return `${prefix === '' ? '' : `${prefix}/`}.intents/${taskId}.json`
}

/** Where the whole record lies when its metadata exceeds S3's limit. */
export function s3SidecarKey(objectKey: string): string {
  return `${objectKey}${RECORD_SUFFIX}`
}

/** JSON with everything outside printable ASCII as `\u` escapes: header values change or refuse anything else. */
export function toAsciiJson(value: JsonObject): string {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** What goes into an object's user metadata, and whether the record needs a sidecar besides. */
export interface S3Metadata {
  /** Values are ASCII; names without `x-amz-meta-`. */
  readonly values: Readonly<Record<string, string>>
  /** True when `metadata` did not fit; the record must then lie at {@link s3SidecarKey} before the object appears. */
  readonly sidecar: boolean
}

/**
 * Fits a record into S3's user metadata; `name` is percent-encoded, `metadata` is ASCII JSON or absent.
 *
 * @param maxValueBytes what the store takes for one value, where that is less than S3's own limit; a name beyond it is left
 *   out, since the key tells it as well
 */
export function toS3Metadata(record: ResultRecord, maxValueBytes = MAX_S3_METADATA_BYTES): S3Metadata {
  const values: Record<string, string> = { 'task-id': record.task_id }
  const name = encodeURIComponent(record.name)
  if (name.length <= maxValueBytes) values.name = name
  values.sha256 = record.sha256
  values['created-at'] = record.created_at
  if (record.archive !== null) values.archive = record.archive
  const metadata = toAsciiJson(record.metadata)
  const used = Object.entries(values).reduce((sum, [key, value]) => sum + key.length + value.length, 0)
  const sidecar =
    metadata.length > maxValueBytes || used + 'metadata'.length + metadata.length > MAX_S3_METADATA_BYTES
  if (!sidecar) values.metadata = metadata
  return { values, sidecar }
}

/**
 * The same as form fields for a POST policy. S3 refuses a form without a field that its policy names, so what is absent is
 * sent empty, and readers take empty for absent.
 */
export function toPolicyFields(values: S3Metadata['values']): Record<string, string> {
  return Object.fromEntries(S3_METADATA_NAMES.map((name) => [`x-amz-meta-${name}`, values[name] ?? '']))
}
