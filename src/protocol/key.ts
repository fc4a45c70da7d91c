import { ConductorError } from '../errors.js'

/** S3 refuses longer keys, counted in UTF-8 bytes: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html */
export const MAX_KEY_BYTES = 1024
/** Longest result name in UTF-8 bytes. */
export const MAX_NAME_BYTES = 255
/** Ending of the metadata record that lies beside a result; no result's own name may end so. */
export const RECORD_SUFFIX = '.meta.json'
/** Ending that an archived directory gets after its name. */
export const ARCHIVE_SUFFIX = '.tar.gz'
/** In place of a task's id where every task is meant; no task has it. */
export const EVERY_TASK = '*'

const taskIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/
const timestampPattern = /^(\d{4})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])-([01]\d|2[0-3])([0-5]\d)([0-5]\d)$/
const controlPattern = /\p{Cc}/u
const loneSurrogatePattern = /\p{Cs}/u
const encoder = new TextEncoder()

/** A result's key taken apart. */
export interface KeyParts {
  readonly taskId: string
  /** UTC, `YYYYMMDD-HHMMSS`. */
  readonly timestamp: string
  /** One path segment; for an archived directory it ends in `.tar.gz`. */
  readonly name: string
}

/** Length in UTF-8 bytes, which is how S3 and file systems count. */
export function byteLength(text: string): number {
  return encoder.encode(text).length
}

/** Says which rule a task id breaks, or `undefined` when it keeps them all. */
export function taskIdProblem(taskId: unknown): string | undefined {
  if (typeof taskId !== 'string') return 'must be a string'
  if (taskId === '') return 'must not be empty'
  if (taskId.length > 128) return `must be at most 128 characters, has ${taskId.length}`
  if (!/^[A-Za-z0-9]/.test(taskId)) return 'must start with a letter or digit'
  if (!taskIdPattern.test(taskId)) return 'may contain only letters, digits, ".", "_" and "-"'
  return undefined
}

/** Says which rule a result's name breaks, or `undefined` when it keeps them all. */
export function nameProblem(name: unknown): string | undefined {
  if (typeof name !== 'string') return 'must be a string'
  if (name === '') return 'must not be empty'
  if (name === '.' || name === '..') return 'must not be "." or ".."'
  if (name.includes('/')) return 'must be one path segment, without "/"'
  if (loneSurrogatePattern.test(name)) return 'must be valid Unicode'
  if (controlPattern.test(name)) return 'must not contain control characters'
  if (name.endsWith(RECORD_SUFFIX)) return `must not end in "${RECORD_SUFFIX}"`
  // No UTF-16 unit takes more than three bytes of UTF-8: short names need no counting.
  if (name.length * 3 <= MAX_NAME_BYTES) return undefined
  const bytes = byteLength(name)
  return bytes <= MAX_NAME_BYTES
    ? undefined
    : `must be at most ${MAX_NAME_BYTES} bytes of UTF-8, has ${bytes}`
}

function refuse(what: string, value: unknown, problem: string): never {
  const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 80)) : typeof value
  throw new ConductorError('INVALID_OPTION', `${what} ${problem} (got ${shown})`)
}

/** Throws `INVALID_OPTION` naming the rule that the task id breaks. */
export function assertTaskId(taskId: unknown): asserts taskId is string {
  const problem = taskIdProblem(taskId)
  if (problem !== undefined) refuse('task id', taskId, problem)
}

/** Throws `INVALID_OPTION` naming the rule that the result's name breaks. */
export function assertName(name: unknown): asserts name is string {
  const problem = nameProblem(name)
  if (problem !== undefined) refuse('name', name, problem)
}

/** UTC `YYYYMMDD-HHMMSS` of a moment; fractions of a second are cut, never rounded up. */
export function formatTimestamp(moment: Date): string {
  const iso = moment.toISOString()
  // Years beyond 9999 come as "+010000-…"; the format has no room for them.
  if (iso.length !== 24) throw new ConductorError('INVALID_OPTION', `timestamp out of range: ${iso}`)
  return `${iso.slice(0, 10).replaceAll('-', '')}-${iso.slice(11, 19).replaceAll(':', '')}`
}

/** The moment a timestamp names, or `undefined` when it is not one (wrong form, 30 February, 25 o'clock). */
export function parseTimestamp(timestamp: string): Date | undefined {
  if (!isTimestamp(timestamp)) return undefined
  const iso = timestamp.replace(timestampPattern, '$1-$2-$3T$4:$5:$6.000Z')
  return new Date(iso)
}

/** The same question without the answer: listings ask it for every key. */
function isTimestamp(timestamp: string): boolean {
  if (!timestampPattern.test(timestamp)) return false
  const day = Number(timestamp.slice(6, 8))
  if (day <= 28) return true
  // Day 0 of the next month is the last of this one; setUTCFullYear takes the years 0 to 99 as they are.
  const last = new Date(0)
  last.setUTCFullYear(Number(timestamp.slice(0, 4)), Number(timestamp.slice(4, 6)), 0)
  return day <= last.getUTCDate()
}

/** The timestamp one second on: where a writer looks next when its key is taken. */
export function nextTimestamp(timestamp: string): string {
  const moment = parseTimestamp(timestamp)
  if (moment === undefined) refuse('timestamp', timestamp, 'must be YYYYMMDD-HHMMSS in UTC')
  return formatTimestamp(new Date(moment.getTime() + 1000))
}

/** Puts a key together, `{task_id}/{timestamp}-{name}`; throws `INVALID_OPTION` for parts that break a rule. */
export function formatKey({ taskId, timestamp, name }: KeyParts): string {
  assertTaskId(taskId)
  assertName(name)
  if (parseTimestamp(timestamp) === undefined) {
    refuse('timestamp', timestamp, 'must be YYYYMMDD-HHMMSS in UTC')
  }
  return `${taskId}/${timestamp}-${name}`
}

/** Takes a key apart, or gives `undefined` for anything {@link formatKey} would not have made. */
export function parseKey(key: string): KeyParts | undefined {
  const slash = key.indexOf('/')
  if (slash < 0 || key[slash + 16] !== '-') return undefined
  const { taskId, timestamp, name } = splitKey(key)
  if (taskIdProblem(taskId) !== undefined || nameProblem(name) !== undefined) return undefined
  return isTimestamp(timestamp) ? { taskId, timestamp, name } : undefined
}

/** Takes apart what is known to be a key; of anything else it makes nonsense. */
export function splitKey(key: string): KeyParts {
  const slash = key.indexOf('/')
  return {
    taskId: key.slice(0, slash),
    timestamp: key.slice(slash + 1, slash + 16),
    name: key.slice(slash + 17),
  }
}

/** Takes a key apart; throws `INVALID_OPTION` for anything that is not one. */
export function assertKey(key: string): KeyParts {
  const parts = parseKey(key)
  if (parts === undefined) refuse('key', key, 'must be "{task_id}/{YYYYMMDD-HHMMSS}-{name}"')
  return parts
}

/** Orders keys as S3 lists them: by UTF-8 bytes, not by UTF-16 units as JavaScript's own sort does. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) {
      // Surrogates stand for code points above U+FFFF, so they sort after every other unit.
      const xHigh = x >= 0xd800 && x <= 0xdfff
      const yHigh = y >= 0xd800 && y <= 0xdfff
      return xHigh === yHigh ? x - y : xHigh ? 1 : -1
    }
  }
  return a.length - b.length
}
