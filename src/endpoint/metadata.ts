import { MAX_METADATA_DEPTH, nestsTooDeep } from '../protocol/metadata-depth.js'
import { parseJsonObject } from '../protocol/parse.js'
import type { JsonObject } from '../protocol/record.js'
import { HttpError } from './http-error.js'

/** Reads the `metadata` field; none or an empty one is an empty object. Throws 422 for anything but a JSON object. */
export function readMetadata(text: string | undefined): JsonObject {
  if (text === undefined || text.trim() === '') return {}
  if (nestsTooDeep(text)) {
    throw new HttpError(
      422,
      'invalid_field',
      `metadata may be nested at most ${MAX_METADATA_DEPTH} levels deep`,
    )
  }
  const metadata = parseJsonObject(text)
  if (metadata === undefined) throw new HttpError(422, 'invalid_field', 'metadata must be a JSON object')
  return metadata
}
