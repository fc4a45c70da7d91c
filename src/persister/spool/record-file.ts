import { readFileSync, statSync } from 'node:fs'
import { writeDurably } from '../../files/durable-file.js'
import { systemCode } from '../../files/system-code.js'
import { parseKey, RECORD_SUFFIX } from '../../protocol/key.js'
import { cutDeep } from '../../protocol/metadata-depth.js'
import type { ResultRecord, StoredAt } from '../../protocol/record.js'
import { spoolFileName } from '../../protocol/spool-layout.js'
import { isObject } from '../json.js'

/** Folder of a task's results in the spool. */
export function taskFolder(localDir: string, taskId: string): string {
  return `${localDir}/${taskId}`
}

/** Where a result's bytes lie in the spool. */
export function bodyPath(localDir: string, record: ResultRecord): string {
  return `${taskFolder(localDir, record.task_id)}/${spoolFileName(record.timestamp, record.name)}`
}

/** Where a result's record lies in the spool. */
export function recordPath(localDir: string, record: ResultRecord): string {
  return `${bodyPath(localDir, record)}${RECORD_SUFFIX}`
}

/** A record as its file's text. */
export function recordText(record: ResultRecord): string {
  return `${JSON.stringify(record)}\n`
}

/** Writes a record beside its body, once `after` is done; when this resolves the result is stored. */
export async function writeRecord(
  localDir: string,
  record: ResultRecord,
  after: Promise<unknown>,
): Promise<void> {
  await writeDurably(recordPath(localDir, record), recordText(record), { after })
}

function isStoredAt(value: unknown): value is StoredAt {
  return (
    isObject(value) &&
    (value.tier === 's3' || value.tier === 'http') &&
    typeof value.location === 'string' &&
    typeof value.at === 'string'
  )
}

/** A record out of its text, or `undefined` for anything that is not a whole, consistent one. */
export function readRecordText(text: string): ResultRecord | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (!isObject(value) || value.v !== 1 || typeof value.key !== 'string') return undefined
  const parts = parseKey(value.key)
  const whole =
    parts !== undefined &&
    value.task_id === parts.taskId &&
    value.timestamp === parts.timestamp &&
    value.name === parts.name &&
    Number.isSafeInteger(value.size) &&
    typeof value.sha256 === 'string' &&
    /^[0-9a-f]{64}$/.test(value.sha256) &&
    typeof value.content_type === 'string' &&
    typeof value.created_at === 'string' &&
    (value.archive === null || value.archive === 'tar.gz') &&
    isObject(value.metadata) &&
    Array.isArray(value.stored) &&
    value.stored.every(isStoredAt) &&
    isObject(value.errors)
  return whole ? (cutDeep(value) as unknown as ResultRecord) : undefined
}

/** What the spool says of a result, by file name; `undefined` unless both its record and all of its bytes are there. */
export function readResult(localDir: string, taskId: string, file: string): ResultRecord | undefined {
  const path = `${taskFolder(localDir, taskId)}/${file}`
  try {
    const record = readRecordText(readFileSync(`${path}${RECORD_SUFFIX}`, 'utf8'))
    if (record === undefined || record.task_id !== taskId) return undefined
    if (spoolFileName(record.timestamp, record.name) !== file) return undefined
    const body = statSync(path)
    return body.isFile() && body.size === record.size ? record : undefined
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}
