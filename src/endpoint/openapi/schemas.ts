import { z } from 'zod'
import { MAX_NAME_BYTES } from '../../protocol/key.js'

const metadata = z.record(z.string(), z.json())
const digest = z.string().regex(/^[0-9a-f]{64}$/)
const time = z.iso.datetime()

/** What is known of one result. */
export const recordSchema = z
  .object({
    v: z.literal(1),
    task_id: z.string().describe('Whose result it is.'),
    timestamp: z
      .string()
      .regex(/^\d{8}-\d{6}$/)
      .describe('UTC, YYYYMMDD-HHMMSS.'),
    name: z.string().max(MAX_NAME_BYTES).describe('As in the key; an archived directory ends in `.tar.gz`.'),
    key: z.string().describe('`{task_id}/{timestamp}-{name}`'),
    size: z.number().int().nonnegative().describe('Bytes.'),
    sha256: digest.describe('Of the bytes, as they were received.'),
    content_type: z.string(),
    metadata: metadata.describe("The worker's own."),
    created_at: time,
    archive: z.literal('tar.gz').nullable().describe('How a directory was packed; null for a file.'),
    stored: z.array(z.object({ tier: z.enum(['s3', 'http']), location: z.string(), at: time })),
    errors: z.record(z.string(), z.unknown()),
  })
  .describe('What is known of one result.')

/** One page of a list. */
export const pageSchema = z
  .object({
    results: z.array(recordSchema).describe('In the byte order of keys.'),
    next: z.string().optional().describe('Cursor of the next page; missing on the last one.'),
  })
  .describe('One page of a list.')

/** One page of the tasks there are. */
export const tasksPageSchema = z
  .object({
    tasks: z
      .array(
        z.object({
          task_id: z.string(),
          updated_at: time.describe('When its newest result was stored.'),
          results: z.number().int().positive().describe('How many it keeps.'),
          size: z.number().int().nonnegative().describe('Bytes, of all of them.'),
        }),
      )
      .describe('In an order of its own.'),
    next: z.string().optional().describe('Cursor of the next page; missing on the last one.'),
  })
  .describe('One page of the tasks there are.')

/** What a POST is answered with. */
export const storedSchema = z
  .object({
    key: z.string().describe('Where the result lies now.'),
    size: z.number().int().nonnegative().describe('Bytes that were received.'),
    sha256: digest.describe('Of the bytes that were received.'),
  })
  .describe('A result that is kept.')

/** What every refusal looks like. */
export const errorSchema = z
  .object({
    error: z.object({
      code: z.string().describe('For programs; does not change between releases.'),
      message: z.string().describe('For people.'),
    }),
  })
  .describe('Why a request was refused.')
