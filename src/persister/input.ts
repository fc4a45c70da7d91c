import { statSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { ConductorError } from '../errors.js'
import { systemCode } from '../files/system-code.js'
import { MAX_METADATA_DEPTH, nestsTooDeep } from '../protocol/metadata-depth.js'
import type { JsonObject } from '../protocol/record.js'
import { describeError } from './fs-error.js'
import { isObject } from './json.js'
import { openContent, openStream } from './source/content-source.js'
import { looksLikePath } from './source/path-like.js'
import { openPath } from './source/path-source.js'
import type { Source } from './source/source.js'

/** Largest metadata, as JSON text in bytes; readers of records stop at 4 MiB. */
const MAX_METADATA_BYTES = 2 << 20

function notJson(cause: unknown): ConductorError {
  return new ConductorError('INVALID_OPTION', `metadata is not JSON: ${describeError(cause)}`, { cause })
}

function tooDeep(cause?: unknown): ConductorError {
  const line = `metadata nests deeper than ${MAX_METADATA_DEPTH} levels`
  return new ConductorError('INVALID_OPTION', line, { cause })
}

/** Checks a value and the text that it came of. */
function assertMetadata(value: unknown, text: string): asserts value is JsonObject {
  if (!isObject(value)) throw new ConductorError('INVALID_OPTION', 'metadata must be a JSON object')
  if (nestsTooDeep(text)) throw tooDeep()
}

/** Whether `JSON.stringify` ran out of stack, which takes thousands of levels. */
function ranOutOfStack(error: unknown): boolean {
  return error instanceof RangeError && error.message.includes('call stack')
}

/** Checks that a value is a JSON object, and gives it as JSON has it; throws `INVALID_OPTION` for anything else. */
export function toMetadata(value: unknown): JsonObject {
  let text: string
  try {
    text = JSON.stringify(value) ?? 'null'
  } catch (error) {
    throw ranOutOfStack(error) ? tooDeep(error) : notJson(error)
  }
  const copy: unknown = JSON.parse(text)
  assertMetadata(copy, text)
  if (Buffer.byteLength(text) > MAX_METADATA_BYTES) {
    throw new ConductorError('INVALID_OPTION', `metadata must be at most ${MAX_METADATA_BYTES} bytes of JSON`)
  }
  return copy
}

/** Reads metadata from JSON text; throws `INVALID_OPTION` for anything but an object. */
export function parseMetadata(text: string): JsonObject {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw notJson(error)
  }
  assertMetadata(value, text)
  return toMetadata(value)
}

function isReadable(value: unknown): value is Readable {
  return (
    typeof value === 'object' &&
    value !== null &&
    Symbol.asyncIterator in value &&
    'pipe' in value &&
    typeof value.pipe === 'function'
  )
}

function exists(path: string): boolean {
  if (path.includes('\0')) return false
  try {
    statSync(path)
    return true
  } catch (error) {
    // A path that cannot be looked at is still a path: opening it will say what is wrong.
    return !['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'EINVAL'].includes(systemCode(error) ?? '')
  }
}

/**
 * Opens what a program hands to `persistResult`. A string is a path when it names something that exists, and content
 * otherwise, unless it looks like a path that was mistyped; `as` decides where a caller knows better.
 */
export async function openInput(
  input: unknown,
  name: string | undefined,
  as: 'path' | 'content' | undefined,
): Promise<Source> {
  if (input instanceof Uint8Array) return openContent(input)
  if (isReadable(input)) return openStream(input)
  if (typeof input !== 'string') {
    throw new ConductorError(
      'INVALID_OPTION',
      'a result must be a path, string, Buffer, Uint8Array or Readable',
    )
  }
  if (as === 'content') return openContent(input)
  if (as === 'path' || (input !== '' && exists(input))) return await openPath(input)
  if (name === undefined || looksLikePath(input)) {
    const shown = JSON.stringify(input.length > 80 ? `${input.slice(0, 80)}…` : input)
    const hint =
      name === undefined ? 'content needs a name' : "to store the string itself, pass { as: 'content' }"
    throw new ConductorError('NOT_FOUND', `cannot read ${shown}: no such file or directory (${hint})`)
  }
  return openContent(input)
}
