import { z } from 'zod'
import { ConductorError } from '../../errors.js'
import { BROKER_LIMITS, type BrokerRequest, isBrokerId } from '../../protocol/broker.js'
import { parseKey } from '../../protocol/key.js'
import { resultRecord } from '../../protocol/parse.js'
import type { ResultRecord } from '../../protocol/record.js'

const common = { v: z.literal(1), id: z.string().refine(isBrokerId, 'must be a request id') }

const record = resultRecord.refine(
  // It becomes a header as it stands.
  ({ content_type }) => /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(content_type),
  { path: ['content_type'], message: 'must be printable ASCII' },
) as unknown as z.ZodType<ResultRecord>
const key = z.string().refine((text) => parseKey(text) !== undefined, 'must be a key')
// Opaque, but it stands in a query and on a line of the answer.
const uploadId = z.string().regex(/^[\x21-\x7e]{1,1024}$/, 'must be an upload id')
const partBytes = z.number().int().min(BROKER_LIMITS.minPartBytes).max(BROKER_LIMITS.maxPartBytes)

const part = z.strictObject({
  number: z.number().int().min(1).max(BROKER_LIMITS.maxParts),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
})

const request = z.discriminatedUnion('op', [
  z.strictObject({ ...common, op: z.literal('put'), record, check: z.boolean().optional() }),
  z.strictObject({ ...common, op: z.literal('create'), record }),
  z.strictObject({
    ...common,
    op: z.literal('parts'),
    key,
    upload_id: uploadId,
    size: z.number().int().positive(),
    part_bytes: partBytes,
    parts: z.array(part).min(1).max(BROKER_LIMITS.partsAtOnce),
  }),
  z.strictObject({
    ...common,
    op: z.literal('complete'),
    record,
    upload_id: uploadId,
    part_bytes: partBytes,
  }),
  z.strictObject({ ...common, op: z.literal('abort'), key, upload_id: uploadId }),
  z.strictObject({ ...common, op: z.literal('get'), key }),
])

/**
 * Reads what a worker of a task asks; nothing in it is believed. Throws `PROTOCOL` for what is no request and `ACCESS_DENIED`
 * for one that reaches beyond the task.
 */
export function parseBrokerRequest(taskId: string, text: string): BrokerRequest {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new ConductorError('PROTOCOL', 'the request is not JSON', { cause })
  }
  const parsed = request.safeParse(value)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    const where = issue?.path.map(String).join('.') || 'value'
    throw new ConductorError('PROTOCOL', `the request is malformed: ${where}: ${issue?.message ?? ''}`)
  }
  const wanted: BrokerRequest = parsed.data
  const owner = 'record' in wanted ? wanted.record.task_id : parseKey(wanted.key)?.taskId
  if (owner !== taskId) throw new ConductorError('ACCESS_DENIED', 'the request is for another task')
  return wanted
}

/** Length of one part of an upload; throws `INVALID_OPTION` for a part that such an upload does not have. */
export function partLength(number: number, sizeBytes: number, partBytesEach: number): number {
  const length = Math.min(partBytesEach, sizeBytes - (number - 1) * partBytesEach)
  if (length <= 0) throw new ConductorError('INVALID_OPTION', `there is no part ${number}`)
  return length
}
