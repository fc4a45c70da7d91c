import { z } from 'zod'
import { ConductorError, isConductorError } from '../../errors.js'
import { parseRecord } from '../../protocol/parse.js'
import type { ResultRecord } from '../../protocol/record.js'

const pageSchema = z.object({
  results: z.array(z.unknown()).max(100_000),
  next: z.string().min(1).max(8192).nullish(),
})

/** One page of a list, as far as it makes sense. */
export interface Page {
  /** Only whole ones. */
  readonly records: readonly ResultRecord[]
  readonly next: string | undefined
}

/** Reads a page; records that are malformed are passed over, a page that is none is `PROTOCOL`. */
export function parsePage(text: string, doing: string): Page {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new ConductorError('PROTOCOL', `${doing} answered with malformed JSON`, { cause })
  }
  const page = pageSchema.safeParse(value)
  if (!page.success) {
    throw new ConductorError('PROTOCOL', `${doing} answered with no page of results`, { cause: page.error })
  }
  const records = page.data.results.flatMap((entry) => {
    const record = readEntry(entry)
    return record === undefined ? [] : [record]
  })
  return { records, next: page.data.next ?? undefined }
}

/** Reads a record; `undefined` for anything but a whole, consistent one. */
export function parseWireRecord(text: string): ResultRecord | undefined {
  try {
    return parseRecord(text)
  } catch (error) {
    // Besides what is plainly wrong: nesting so deep that no checker gets through it.
    if (isConductorError(error) || error instanceof RangeError) return undefined
    throw error
  }
}

function readEntry(entry: unknown): ResultRecord | undefined {
  try {
    return parseWireRecord(JSON.stringify(entry) ?? '')
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}
