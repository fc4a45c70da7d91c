import { z } from 'zod'
import { ENV } from '../../protocol/environment.js'
import { taskIdProblem } from '../../protocol/key.js'
import { signalSchema } from '../../signals.js'
import { type UndeclaredOptions, undeclaredSchema } from '../end/undeclared.js'
import { type Access, absolutePath, accessSchema } from '../options.js'

/** How often what failed is tried again. */
export interface RetryOptions {
  /** Creating the sandbox, when E2B is busy, down or out of reach; the pauses double from half a second to 30. @default 6 */
  readonly create?: number | undefined
  /**
   * Beginning `command` again, from the start and in a new sandbox with the same `files`, when its sandbox goes away while it
   * runs. Not for a command that ended, however badly, or was stopped. `timeoutMs` is for all attempts together. Only the process
   * that spawned the worker does so: one that `attach()` or `recover()` took up is lost for good. @default 0
   */
  readonly lost?: number | undefined
}

/** What one worker is to do. */
export interface SpawnOptions {
  /** Letters, digits, `.`, `_`, `-`; at most 128. @default a new one, `worker-…` */
  readonly taskId?: string | undefined
  /** What to do when the task has a worker already: refuse with `EXISTS`, or take that worker up. @default 'error' */
  readonly ifExists?: 'error' | 'attach' | undefined
  /** How often what failed is tried again. */
  readonly retries?: RetryOptions | undefined
  /** Shell command to start at once; without it the worker waits for `run`. */
  readonly command?: string | undefined
  /** Files to put into the sandbox before anything runs, by absolute path. */
  readonly files?: Readonly<Record<string, string | Uint8Array>> | undefined
  /** Files and folders that are results: persisted when the command ends and again, if changed, at `terminate()`. */
  readonly outputs?: readonly string[] | undefined
  /** Stores, at the end, files that were changed and that nobody declared or persisted, as `undeclared-outputs.tar.gz`. @default not done */
  readonly undeclared?: UndeclaredOptions | undefined
  /** Variables for the worker's commands. */
  readonly env?: Readonly<Record<string, string>> | undefined
  /** Working directory of commands. @default '/workspace' */
  readonly cwd?: string | undefined
  /** Time the worker may take, in milliseconds; then its command is stopped. @default 3,600,000 */
  readonly timeoutMs?: number | undefined
  /** Time a stopped command gets between SIGTERM and SIGKILL, in milliseconds. @default 10,000 */
  readonly graceMs?: number | undefined
  /** Overrides the conductor's. */
  readonly template?: string | undefined
  /** Overrides the conductor's. */
  readonly access?: Access | undefined
  /** Overrides the conductor's. */
  readonly volume?: string | undefined
  /** Further metadata of the sandbox, as E2B lists it. */
  readonly metadata?: Readonly<Record<string, string>> | undefined
  /** Gives up waiting and starting; a sandbox that was made meanwhile is killed. */
  readonly signal?: AbortSignal | undefined
}

// The E2B SDK sends paths as multipart file names, in which these characters arrive as others.
const filePath = absolutePath.regex(/^[^"\r\n]*$/, 'must not contain quotes or line breaks')

const fileData = z.custom<string | Uint8Array>(
  (value) => typeof value === 'string' || value instanceof Uint8Array,
  'must be a string or Uint8Array',
)

const ownNames: ReadonlySet<string> = new Set(Object.values(ENV).filter((name) => name.startsWith('WORKER_')))

const spawnFields = z.strictObject({
  taskId: z
    .string()
    .superRefine((taskId, context) => {
      const problem = taskIdProblem(taskId)
      if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
    })
    .optional(),
  ifExists: z.enum(['error', 'attach']).default('error'),
  retries: z
    .strictObject({
      create: z.number().int().min(0).max(100).default(6),
      lost: z.number().int().min(0).max(100).default(0),
    })
    .prefault({}),
  command: z.string().min(1).optional(),
  files: z.record(filePath, fileData).optional(),
  outputs: z
    .array(
      z
        .string()
        .min(1)
        .regex(/^[^\0]*$/, 'must not contain NUL'),
    )
    .optional(),
  env: z
    .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'must be a variable name'), z.string())
    .refine((env) => !Object.keys(env).some((name) => ownNames.has(name)), {
      message: `must not set what the conductor sets: ${[...ownNames].join(', ')}`,
    })
    .optional(),
  undeclared: undeclaredSchema.optional(),
  cwd: absolutePath.optional(),
  timeoutMs: z.number().int().min(1).max(86_400_000).default(3_600_000),
  graceMs: z.number().int().min(0).max(3_600_000).default(10_000),
  template: z.string().min(1).optional(),
  access: accessSchema.optional(),
  volume: z.string().min(1).optional(),
  metadata: z.record(z.string(), z.string()).optional(),
  signal: signalSchema,
})

/** Checks {@link SpawnOptions}. Declared along with {@link ResolvedSpawn}, which is of its type. */
export const spawnOptionsSchema = spawnFields.refine(
  ({ retries, command }) => retries.lost === 0 || command !== undefined,
  { path: ['retries', 'lost'], message: 'needs a command that can be begun again' },
)

/** Spawn options as the worker sees them, checked and with defaults applied. */
export type ResolvedSpawn = z.output<typeof spawnOptionsSchema> & { readonly taskId: string }
