import { createHash } from 'node:crypto'
import { formatKey } from '../../src/protocol/key.js'
import type { JsonObject, ResultRecord } from '../../src/protocol/record.js'

/** What a test wants stored. */
export interface SeedSpec {
  readonly taskId: string
  readonly name: string
  readonly timestamp?: string
  readonly metadata?: JsonObject
  readonly contentType?: string
  readonly archive?: 'tar.gz' | null
}

/** A consistent record for a body, as a persister would write it. */
export function recordFor(spec: SeedSpec, body: Uint8Array): ResultRecord {
  const { taskId, name, timestamp = '20260114-120000' } = spec
  return {
    v: 1,
    task_id: taskId,
    timestamp,
    name,
    key: formatKey({ taskId, timestamp, name }),
    size: body.length,
    sha256: createHash('sha256').update(body).digest('hex'),
    content_type: spec.contentType ?? 'application/octet-stream',
    metadata: spec.metadata ?? {},
    created_at: '2026-01-14T12:00:00.123Z',
    archive: spec.archive ?? null,
    stored: [],
    errors: {},
  }
}

/** Reads a stream to its end. */
export async function readAll(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** Collects an async iterable. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
