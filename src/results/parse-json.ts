import { ConductorError } from '../errors.js'

/** What a schema of any library that follows Standard Schema offers: https://standardschema.dev */
export interface StandardSchema<T> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    validate(value: unknown): StandardVerdict<T> | Promise<StandardVerdict<T>>
  }
}

type StandardVerdict<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly StandardIssue[] }

interface StandardIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/** A schema that gives the value or throws. */
export interface ParsingSchema<T> {
  parse(value: unknown): T
}

/** What a result's JSON may be checked with. */
export type JsonSchema<T> = StandardSchema<T> | ParsingSchema<T>

const SHOWN_ISSUES = 3

/** Whether something is a schema rather than options. */
export function isSchema(value: object): value is JsonSchema<unknown> {
  return '~standard' in value || ('parse' in value && typeof value.parse === 'function')
}

/** Parses a result's text; rejects with `INTEGRITY`, naming the result and what is wrong with it. */
export async function parseJson<T>(
  key: string,
  text: string,
  schema: JsonSchema<T> | undefined,
): Promise<unknown> {
  let value: unknown
  try {
    // Some programs begin what they write with a byte order mark, which readers may pass over: https://www.rfc-editor.org/rfc/rfc8259#section-8.1
    value = JSON.parse(text.replace(/^\ufeff/, ''))
  } catch (cause) {
    throw new ConductorError('INTEGRITY', `${key} is not JSON`, { cause })
  }
  if (schema === undefined) return value
  if (!('~standard' in schema)) {
    try {
      return schema.parse(value)
    } catch (cause) {
      const said = cause instanceof Error ? cause.message : String(cause)
      throw refusal(key, said, cause)
    }
  }
  const verdict = await schema['~standard'].validate(value)
  if (verdict.issues === undefined) return verdict.value
  const shown = verdict.issues.slice(0, SHOWN_ISSUES).map(describeIssue)
  const more = verdict.issues.length - shown.length
  throw refusal(key, `${shown.join('; ')}${more > 0 ? ` and ${more} more` : ''}`, verdict.issues)
}

function describeIssue({ message, path = [] }: StandardIssue): string {
  const at = path.map((part) => String(typeof part === 'object' ? part.key : part)).join('.')
  return at === '' ? message : `${at}: ${message}`
}

function refusal(key: string, said: string, cause: unknown): ConductorError {
  return new ConductorError('INTEGRITY', `${key} is not what it should be: ${said.slice(0, 2000)}`, { cause })
}
