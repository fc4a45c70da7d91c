import type { IncomingMessage } from 'node:http'
import { z } from 'zod'
import { RequestError } from '../request-error.js'

const MAX_JSON_BYTES = 16 * 1024 * 1024

/** Reads a whole body of bounded size. */
export async function readBody(req: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  let sizeBytes = 0
  for await (const chunk of req) {
    sizeBytes += (chunk as Buffer).length
    if (sizeBytes > MAX_JSON_BYTES) {
      throw new RequestError('invalid_argument', `the body is larger than ${MAX_JSON_BYTES} bytes`)
    }
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks)
}

/** Reads a JSON body and checks it; an empty one counts as `{}`. */
export async function readJson<T extends z.ZodType>(req: IncomingMessage, schema: T): Promise<z.output<T>> {
  const body = await readBody(req)
  return parseJson(body.length === 0 ? '{}' : body.toString('utf8'), schema)
}

/** Checks JSON text against a schema; what is wrong with it goes into the `invalid_argument` error. */
export function parseJson<T extends z.ZodType>(text: string, schema: T): z.output<T> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new RequestError('invalid_argument', 'the body is not valid JSON', { cause: error })
  }
  return check(value, schema)
}

/** Checks a value against a schema. */
export function check<T extends z.ZodType>(value: unknown, schema: T): z.output<T> {
  const parsed = schema.safeParse(value)
  if (!parsed.success) throw new RequestError('invalid_argument', z.prettifyError(parsed.error))
  return parsed.data
}
