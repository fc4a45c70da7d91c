import { z } from 'zod'
import {
  formatKey,
  formatTimestamp,
  nameProblem,
  parseKey,
  parseTimestamp,
  taskIdProblem,
} from '../protocol/key.js'
import type { JsonObject, ResultRecord, StoredAt } from '../protocol/record.js'
import type { StagedBody } from './backends/staging-folder.js'
import { HttpError } from './http-error.js'
import { readMetadata } from './metadata.js'
import { safeMediaType, UNKNOWN_TYPE } from './safe-headers.js'

/** Where a posted result is to lie: under a key of the client's, or under a name that the endpoint makes a key of. */
export interface Address {
  readonly taskId: string
  readonly timestamp: string
  readonly name: string
  /** Whether the timestamp was chosen here, and may move on when it is taken. */
  readonly movable: boolean
}

/** What a form says besides where its file is to lie. */
export interface UploadFields {
  readonly sha256: string | undefined
  readonly metadata: JsonObject
  readonly contentType: string | undefined
  readonly createdAt: string | undefined
  readonly archive: 'tar.gz' | null
}

const isoTime = z.iso.datetime()

/**
 * Reads `task_id` and `key`. A key without a slash is taken as a name, which the endpoint completes, so that a form made by
 * hand is stored like any other.
 */
export function readAddress(fields: ReadonlyMap<string, string>, now: Date): Address {
  const taskId = required(fields, 'task_id')
  const key = required(fields, 'key')
  const badTask = taskIdProblem(taskId)
  if (badTask !== undefined) throw invalid(`task_id ${badTask}`)
  if (!key.includes('/')) {
    const badName = nameProblem(key)
    if (badName !== undefined) throw invalid(`key without "/" is a name, which ${badName}`)
    return { taskId, timestamp: formatTimestamp(now), name: key, movable: true }
  }
  const parts = parseKey(key)
  if (parts === undefined) {
    throw invalid('key must be "{task_id}/{YYYYMMDD-HHMMSS}-{name}", or a name without "/"')
  }
  if (parts.taskId !== taskId) throw invalid('key must begin with task_id and a slash')
  return { ...parts, movable: false }
}

/** Reads all other fields; those it does not know are passed over. */
export function readUploadFields(fields: ReadonlyMap<string, string>): UploadFields {
  const sha256 = optional(fields, 'sha256')?.toLowerCase()
  if (sha256 !== undefined && !/^[0-9a-f]{64}$/.test(sha256)) throw invalid('sha256 must be 64 hex digits')
  const createdAt = optional(fields, 'created_at')
  if (createdAt !== undefined && !isoTime.safeParse(createdAt).success) {
    throw invalid('created_at must be an ISO 8601 time in UTC')
  }
  const archive = optional(fields, 'archive') ?? null
  if (archive !== null && archive !== 'tar.gz') throw invalid('archive must be "tar.gz" or left out')
  const contentType = optional(fields, 'content_type')
  return { sha256, metadata: readMetadata(fields.get('metadata')), contentType, createdAt, archive }
}

/** The record of a posted result. */
export function makeRecord(
  { taskId, timestamp, name, movable }: Address,
  fields: UploadFields,
  body: StagedBody,
  partType: string,
  stored: StoredAt,
): ResultRecord {
  return {
    v: 1,
    task_id: taskId,
    timestamp,
    name,
    key: formatKey({ taskId, timestamp, name }),
    size: body.sizeBytes,
    sha256: body.sha256,
    content_type: safeMediaType(fields.contentType ?? (partType === '' ? UNKNOWN_TYPE : partType)),
    metadata: fields.metadata,
    // The key's own time is the worker's word, if only to the second.
    created_at: new Date(
      fields.createdAt ?? (movable ? undefined : parseTimestamp(timestamp)) ?? stored.at,
    ).toISOString(),
    archive: fields.archive,
    stored: [stored],
    errors: {},
  }
}

function optional(fields: ReadonlyMap<string, string>, name: string): string | undefined {
  const value = fields.get(name)
  return value === '' ? undefined : value
}

function required(fields: ReadonlyMap<string, string>, name: string): string {
  const value = fields.get(name)
  if (value === undefined) throw new HttpError(422, 'missing_field', `the form has no field "${name}"`)
  return value
}

function invalid(message: string): HttpError {
  return new HttpError(422, 'invalid_field', message)
}
