import { parseArgs } from 'node:util'
import { ConductorError } from '../../errors.js'
import type { Requirement } from '../courier.js'
import { describeError } from '../fs-error.js'

/** What a command line asks for. */
export type Request =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | (StoreRequest & { readonly kind: 'store' })
  | { readonly kind: 'list'; readonly taskId: string | undefined; readonly json: boolean }
  | { readonly kind: 'retrieve'; readonly key: string; readonly output: string | undefined }
  | {
      readonly kind: 'flush'
      readonly taskId: string | undefined
      readonly require: Requirement
      readonly json: boolean
      readonly quiet: boolean
    }

/** Paths to be stored and what is said about them. */
export interface StoreRequest {
  readonly paths: readonly string[]
  readonly name: string | undefined
  /** JSON text, or `@file`. */
  readonly metadata: string | undefined
  readonly taskId: string | undefined
  readonly contentType: string | undefined
  readonly require: Requirement
  readonly json: boolean
  readonly quiet: boolean
}

/** Refuses a command line; the message becomes one line on standard error. */
export function usageError(problem: string): ConductorError {
  return new ConductorError('INVALID_OPTION', `${problem} (persist-result --help tells more)`)
}

/** Like `parseArgs`, with refusals that are one line. */
export const parseOptions: typeof parseArgs = (config) => {
  try {
    return parseArgs(config)
  } catch (error) {
    throw usageError(describeError(error).replace(/\. .*$/, ''))
  }
}

const options = {
  name: { type: 'string', short: 'n' },
  metadata: { type: 'string', short: 'm' },
  'task-id': { type: 'string', short: 't' },
  'content-type': { type: 'string' },
  require: { type: 'string' },
  json: { type: 'boolean' },
  quiet: { type: 'boolean', short: 'q' },
  list: { type: 'boolean', short: 'l' },
  retrieve: { type: 'string', short: 'r' },
  output: { type: 'string', short: 'o' },
  flush: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const

function readRequirement(value: string | undefined): Requirement {
  if (value === undefined || value === 's3' || value === 'http' || value === 'remote') return value
  throw usageError(`--require must be s3, http or remote, not "${value}"`)
}

/** Reads the command line of everything but the subcommands; throws `INVALID_OPTION` for a wrong one. */
export function parseRequest(argv: readonly string[]): Request {
  const { values, positionals } = parseOptions({ args: [...argv], options, allowPositionals: true })
  if (values.help === true) return { kind: 'help' }
  if (values.version === true) return { kind: 'version' }
  const modes = [values.list, values.retrieve, values.flush].filter((mode) => mode !== undefined)
  if (modes.length > 1) throw usageError('--list, --retrieve and --flush exclude each other')
  const json = values.json === true
  const quiet = values.quiet === true
  const taskId = values['task-id']
  const common = { taskId, json, quiet, require: readRequirement(values.require) }
  if (values.output !== undefined && values.retrieve === undefined) {
    throw usageError('--output belongs to --retrieve')
  }
  if (values.list === true) {
    if (positionals.length > 1) throw usageError('--list takes one task')
    return { kind: 'list', taskId: positionals[0] ?? taskId, json }
  }
  if (values.retrieve !== undefined) {
    if (positionals.length > 0) throw usageError('--retrieve takes one key')
    return { kind: 'retrieve', key: values.retrieve, output: values.output }
  }
  if (values.flush === true) {
    if (positionals.length > 0) throw usageError('--flush takes no paths')
    return { kind: 'flush', ...common }
  }
  if (positionals.length === 0) throw usageError('nothing to store: give a path, or - for standard input')
  if (values.name !== undefined && positionals.length > 1) throw usageError('--name goes with one path only')
  if (positionals.includes('-') && values.name === undefined) throw usageError('- needs --name')
  return {
    kind: 'store',
    ...common,
    paths: positionals,
    name: values.name,
    metadata: values.metadata,
    contentType: values['content-type'],
  }
}
