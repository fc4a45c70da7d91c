import { z } from 'zod'
import { ConductorError } from '../errors.js'
import type { DrainReport } from './drain.js'
import type { Intent } from './intent.js'
import { assertTaskId, parseKey } from './key.js'
import type { Manifest } from './manifest.js'
import { cutDeep } from './metadata-depth.js'
import type { DeathCause } from './outcome.js'
import type { JsonObject, ResultRecord } from './record.js'
import type { ExitRecord } from './spool-layout.js'
import type { WorkerRecord } from './worker-record.js'

/** Largest record that is read; a sandbox may have written anything. */
export const MAX_RECORD_BYTES = 4 * 1024 * 1024

/** Most that all records of one task in a spool may take together: a sandbox may have written any number of them. */
export const MAX_SPOOL_RECORD_BYTES = 128 * 1024 * 1024

const isoTime = z.iso.datetime()
// What is in it came out of JSON.parse and is JSON; a schema that rebuilt it would lose a key named "__proto__".
const jsonObject = z
  .custom<JsonObject>(
    (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
    'must be an object',
  )
  .transform(cutDeep)

const tierError = z.object({ code: z.string().max(100), message: z.string().max(10_000), at: isoTime })

/** What {@link parseRecord} accepts. @internal */
export const resultRecord = z
  .object({
    v: z.literal(1),
    task_id: z.string(),
    timestamp: z.string(),
    name: z.string(),
    key: z.string(),
    size: z.number().int().nonnegative(),
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
    content_type: z.string().max(255),
    metadata: jsonObject,
    created_at: isoTime,
    archive: z.literal('tar.gz').nullable(),
    stored: z
      .array(z.object({ tier: z.enum(['s3', 'http']), location: z.string().max(4096), at: isoTime }))
      .max(16),
    errors: z.object({ s3: tierError.optional(), http: tierError.optional() }),
  })
  .refine(
    (record) => {
      const parts = parseKey(record.key)
      return (
        parts !== undefined &&
        parts.taskId === record.task_id &&
        parts.timestamp === record.timestamp &&
        parts.name === record.name
      )
    },
    { message: 'key does not match task_id, timestamp and name' },
  )

const exitRecord = z.object({
  v: z.literal(1),
  task_id: z.string(),
  run_id: z.string(),
  code: z.number().int().nullable(),
  signal: z.string().max(32).nullable(),
  started_at: isoTime,
  ended_at: isoTime,
})

// It becomes a word of a command, where NUL cannot be.
const shellWord = z
  .string()
  .min(1)
  .max(4096)
  .regex(/^[^\0]*$/)

const sandboxIntent = z.object({
  v: z.literal(1),
  task_id: z.string(),
  spawn_id: z.string(),
  conductor: z.string(),
  created_at: isoTime,
  attempt: z.number().int().min(1).optional(),
  volume: z.string().min(1).optional(),
  certificate_key: z.string().optional(),
  sandbox_id: z.string().optional(),
  deadline_at: isoTime.optional(),
})

const intent = sandboxIntent.extend({ earlier: z.array(sandboxIntent).optional() })

const workerRecord = z.object({
  v: z.literal(1),
  task_id: z.string(),
  spawn_id: z.string().max(64),
  attempt: z.number().int().min(1).max(1000),
  created_at: isoTime,
  deadline_at: isoTime,
  grace_ms: z.number().int().min(0).max(3_600_000),
  cwd: shellWord,
  outputs: z.array(shellWord).max(10_000),
  undeclared: z
    .object({
      roots: z.array(shellWord).min(1).max(1000),
      max_bytes: z.number().int().positive(),
      max_files: z.number().int().positive().max(1_000_000),
      exclude: z.array(shellWord).max(1000),
    })
    .nullable(),
})

const outcome = z.enum(['succeeded', 'failed', 'killed', 'timed_out', 'lost', 'idle'])
const deathCause = z.enum([
  'deadline',
  'stopped',
  'sandbox_timeout',
  'sandbox_vanished',
  'out_of_memory',
  'disk_full',
  'signal',
  'supervisor_killed',
  'supervisor_failed',
  'unknown',
] satisfies DeathCause[])
const exitStatus = z.object({ code: z.number().int().nullable(), signal: z.string().nullable() })

const manifest = z.object({
  v: z.literal(1),
  task_id: z.string(),
  sealed_at: isoTime,
  outcome,
  exit: exitStatus.nullable(),
  complete: z.boolean(),
  attempts: z.array(
    z.object({
      attempt: z.number().int().min(1),
      sandbox_id: z.string(),
      spawn_id: z.string(),
      ended_at: isoTime,
      outcome,
      exit: exitStatus.nullable(),
      cause: deathCause.nullable(),
      volume: z.string().min(1).optional(),
      keys: z.array(z.string()),
      missing_outputs: z.array(z.string()).optional(),
      failed_outputs: z.array(z.object({ path: z.string(), reason: z.string() })).optional(),
      undelivered: z.array(z.object({ key: z.string(), reason: z.string() })).optional(),
    }),
  ),
  deleting: z.union([z.literal('all'), z.array(z.string())]).optional(),
  results: z.array(resultRecord),
})

const drainReport = z.object({
  v: z.literal(1),
  outputs: z.array(
    z.object({
      path: z.string(),
      status: z.enum(['stored', 'unchanged', 'missing', 'failed']),
      key: z.string().nullable(),
      error: z.string().nullable(),
    }),
  ),
  records: z.array(resultRecord),
})

function parseAs<T>(what: string, schema: z.ZodType<T>, text: string): T {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new ConductorError('PROTOCOL', `${what} is not JSON`, { cause })
  }
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw new ConductorError('PROTOCOL', `${what} is malformed: ${describeIssues(parsed.error)}`, {
    cause: parsed.error,
  })
}

/** Parses a worker's metadata; `undefined` for anything but a JSON object. */
export function parseJsonObject(text: string): JsonObject | undefined {
  try {
    const parsed = jsonObject.safeParse(JSON.parse(text))
    return parsed.success ? parsed.data : undefined
  } catch {
    return undefined
  }
}

/** One line for zod's findings: where, and what was expected. */
function describeIssues(error: z.ZodError): string {
  return error.issues
    .slice(0, 3)
    .map((issue) => `${issue.path.map(String).join('.') || 'value'}: ${issue.message}`)
    .join('; ')
}

/** Parses a metadata record from a sandbox or a store; throws `PROTOCOL` for anything but a whole, consistent one. */
export function parseRecord(text: string): ResultRecord {
  return parseAs('metadata record', resultRecord as z.ZodType<ResultRecord>, text)
}

/** Parses `exit.json`; throws `PROTOCOL` for anything but a whole one. */
export function parseExitRecord(text: string): ExitRecord {
  return parseAs('exit record', exitRecord, text)
}

/** Parses a worker's own record; throws `PROTOCOL` when it is another task's or malformed. */
export function parseWorkerRecord(taskId: string, text: string): WorkerRecord {
  const parsed = parseAs('worker record', workerRecord, text)
  if (parsed.task_id !== taskId) {
    throw new ConductorError('PROTOCOL', `worker record of ${taskId} names another task`)
  }
  return parsed
}

/** Parses a conductor's intent to start a worker; throws `PROTOCOL` for anything else. */
export function parseIntent(text: string): Intent {
  return parseAs('intent', intent, text)
}

/** Parses what `persist-result drain --json` printed; throws `PROTOCOL` for anything else. */
export function parseDrainReport(text: string): DrainReport {
  return parseAs('drain report', drainReport as z.ZodType<DrainReport>, text)
}

/** Parses a manifest of the given task; throws `PROTOCOL` when it is another's or malformed. */
export function parseManifest(taskId: string, text: string): Manifest {
  assertTaskId(taskId)
  const parsed = parseAs('manifest', manifest as z.ZodType<Manifest>, text)
  if (parsed.task_id !== taskId || parsed.results.some((record) => record.task_id !== taskId)) {
    throw new ConductorError('PROTOCOL', `manifest of ${taskId} names another task`)
  }
  return parsed
}
