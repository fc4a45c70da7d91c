import { z } from 'zod'
import { checkOptions } from '../check-options.js'
import { MAX_RECORD_BYTES } from '../protocol/parse.js'
import type { EndpointBackend } from './backends/endpoint-backend.js'
import { type TokenScope, tokenSecretsSchema } from './token.js'

/** Whom a request comes from, in terms of what it may do. */
export interface Principal {
  /** The only task it may touch; without one, every task. */
  readonly taskId?: string | undefined
  readonly scopes: readonly TokenScope[]
}

/** Decides whom a request comes from; null means nobody known. It gets the request without its body. */
export type Authenticate = (request: Request) => Promise<Principal | null>

/** Bounds on what one request or one task may bring. */
export interface EndpointLimits {
  /** Largest single result. @default 5 GiB, the most that S3 takes in one request */
  readonly maxFileBytes?: number | undefined
  /** Largest metadata, as JSON text. @default 2 MiB, what `persist-result` takes */
  readonly maxMetadataBytes?: number | undefined
  /** Bytes a task may keep. @default no limit */
  readonly maxTaskBytes?: number | undefined
  /** Results a task may keep. @default no limit */
  readonly maxTaskResults?: number | undefined
  /** Results in one page of a list; pages also end when their metadata grows large. @default 1000 */
  readonly pageSize?: number | undefined
  /** Longest time without a byte of an upload. @default 60000 */
  readonly stallTimeoutMs?: number | undefined
}

/** How a results endpoint behaves. One of `tokenSecrets` and `authenticate` must be said. */
export interface ResultsHandlerOptions {
  /** Where results are kept; stays the caller's to close. */
  readonly backend: EndpointBackend
  /** Path the handler is mounted at, for example `/results`. @default '/' */
  readonly basePath?: string | undefined
  /** Accepts the tokens that `mintToken` makes with any of these secrets; at least 32 bytes each. */
  readonly tokenSecrets?: readonly string[] | undefined
  /** Replaces tokens by the caller's own check; `'none'` lets everybody do everything. */
  readonly authenticate?: Authenticate | 'none' | undefined
  readonly limits?: EndpointLimits | undefined
  /** Told of failures that clients see as a 5xx. @default prints a warning */
  readonly onFault?: ((error: unknown) => void) | undefined
  /** The clock that tokens are held against. @default the system's */
  readonly now?: (() => Date) | undefined
}

/** Limits with defaults applied; undefined is no limit. */
export interface ResolvedLimits {
  readonly maxFileBytes: number
  readonly maxMetadataBytes: number
  readonly maxTaskBytes: number | undefined
  readonly maxTaskResults: number | undefined
  readonly pageSize: number
  readonly stallTimeoutMs: number
}

/** Options with defaults applied. */
export interface ResolvedHandlerOptions {
  readonly backend: EndpointBackend
  /** Without a slash at its end; empty for the root. */
  readonly basePath: string
  readonly access:
    | { readonly kind: 'none' }
    | { readonly kind: 'tokens'; readonly secrets: readonly string[] }
    | { readonly kind: 'hook'; readonly authenticate: Authenticate }
  readonly limits: ResolvedLimits
  readonly onFault: (error: unknown) => void
  readonly now: () => Date
}

const bytes = z.number().int().positive()

/** @internal */
export const endpointLimitsSchema = z.strictObject({
  maxFileBytes: bytes.optional(),
  // A record must stay readable with everything else that is in it.
  maxMetadataBytes: bytes.max(MAX_RECORD_BYTES - 64 * 1024).optional(),
  maxTaskBytes: bytes.optional(),
  maxTaskResults: bytes.optional(),
  pageSize: bytes.max(10_000).optional(),
  stallTimeoutMs: bytes.max(2 ** 31 - 1).optional(),
})

const functionSchema = <T>() => z.custom<T>((value) => typeof value === 'function', 'must be a function')

/** @internal */
export const handlerOptionsSchema = z
  .strictObject({
    backend: z.custom<EndpointBackend>(
      (value) => typeof value === 'object' && value !== null && 'commit' in value,
      'must be a DirectoryBackend, an S3Backend, or like them',
    ),
    basePath: z
      .string()
      .regex(/^\/[A-Za-z0-9._~/-]*$/, 'must be a path of plain characters that starts with a slash')
      .optional(),
    tokenSecrets: tokenSecretsSchema.readonly().optional(),
    authenticate: z.union([z.literal('none'), functionSchema<Authenticate>()]).optional(),
    limits: endpointLimitsSchema.optional(),
    onFault: functionSchema<(error: unknown) => void>().optional(),
    now: functionSchema<() => Date>().optional(),
  })
  .refine(
    ({ tokenSecrets, authenticate }) => (tokenSecrets === undefined) !== (authenticate === undefined),
    "say either tokenSecrets or authenticate; authenticate: 'none' lets everybody in",
  )

/** Checks the options and applies defaults; throws `INVALID_OPTION` naming the option. */
export function resolveHandlerOptions(options: ResultsHandlerOptions): ResolvedHandlerOptions {
  const checked = checkOptions('results endpoint', handlerOptionsSchema, options)
  const { tokenSecrets, authenticate, limits = {} } = checked
  return {
    // The instance itself: zod hands back custom values as they are.
    backend: checked.backend,
    basePath: (checked.basePath ?? '/').replace(/\/+$/, ''),
    access:
      tokenSecrets !== undefined
        ? { kind: 'tokens', secrets: tokenSecrets }
        : typeof authenticate === 'function'
          ? { kind: 'hook', authenticate }
          : { kind: 'none' },
    limits: {
      maxFileBytes: limits.maxFileBytes ?? 5 * 1024 ** 3,
      maxMetadataBytes: limits.maxMetadataBytes ?? 2 << 20,
      maxTaskBytes: limits.maxTaskBytes,
      maxTaskResults: limits.maxTaskResults,
      pageSize: limits.pageSize ?? 1000,
      stallTimeoutMs: limits.stallTimeoutMs ?? 60_000,
    },
    onFault:
      checked.onFault ?? ((error) => process.emitWarning(error instanceof Error ? error : String(error))),
    now: checked.now ?? (() => new Date()),
  }
}
