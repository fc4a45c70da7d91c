import { parseJsonObject } from '../protocol/parse.js'
import type { JsonObject } from '../protocol/record.js'
import { HttpError } from './http-error.js'

/** Deeper nesting is nobody's metadata, and breaks readers that descend by recursion. */
const MAX_DEPTH = 100

/** Reads the `metadata` field; none or an empty one is an empty object. Throws 422 for anything but a JSON object. */
export function readMetadata(text: string | undefined): JsonObject {
  if (text === undefined || text.trim() === '') return {}
  if (nestsTooDeep(text)) {
    throw new HttpError(422, 'invalid_field', `metadata may be nested at most ${MAX_DEPTH} levels deep`)
  }
  const metadata = parseJsonObject(text)
  if (metadata === undefined) throw new HttpError(422, 'invalid_field', 'metadata must be a JSON object')
  return metadata
}

/** Counts brackets outside of strings, which a parser that recurses could not do safely. */
function nestsTooDeep(text: string): boolean {
  let depth = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const sign = text[i]
    if (inString) {
      if (sign === '\\') i++
      else if (sign === '"') inString = false
    } else if (sign === '"') inString = true
    else if (sign === '{' || sign === '[') {
      if (++depth > MAX_DEPTH) return true
    } else if (sign === '}' || sign === ']') depth--
  }
  return false
}
