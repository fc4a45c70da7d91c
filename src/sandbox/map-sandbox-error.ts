import {
  AuthenticationError,
  FileNotFoundError,
  InvalidArgumentError,
  NotEnoughSpaceError,
  RateLimitError,
  SandboxError,
  SandboxNotFoundError,
  ServiceBusyError,
  TimeoutError,
  VolumeNotFoundError,
  VolumePathNotFoundError,
} from 'e2b'
import { ConductorError, type ErrorCode, isConductorError } from '../errors.js'

type ErrorClass = new (...args: never[]) => Error

const byClass: readonly (readonly [ErrorClass, ErrorCode, boolean])[] = [
  [SandboxNotFoundError, 'SANDBOX_GONE', false],
  [FileNotFoundError, 'NOT_FOUND', false],
  [VolumeNotFoundError, 'NOT_FOUND', false],
  [VolumePathNotFoundError, 'NOT_FOUND', false],
  [AuthenticationError, 'ACCESS_DENIED', false],
  [InvalidArgumentError, 'INVALID_OPTION', false],
  [NotEnoughSpaceError, 'NO_SPACE', false],
  [RateLimitError, 'UNAVAILABLE', true],
  [ServiceBusyError, 'UNAVAILABLE', true],
  [TimeoutError, 'TIMEOUT', true],
]

/** Classifies whatever the E2B SDK threw, by its class and never by its wording. Gives back a cancellation's reason unwrapped. */
export function mapSandboxError(error: unknown, doing: string, signal?: AbortSignal): unknown {
  if (signal?.aborted) return signal.reason
  if (isConductorError(error) || !(error instanceof Error)) return error
  const found = byClass.find(([kind]) => error instanceof kind)
  // A connection that failed reaches us as undici's or the system's error, of no class of the SDK's.
  // Everything that has no class of its own carries the status of the answer, where there was one.
  const failed = Number((error as { statusCode?: unknown }).statusCode) >= 500
  const network =
    failed || ['TypeError', 'ConnectError'].includes(error.name) || 'code' in error || isUnansweredCall(error)
  const [, code, retryable] = found ?? [undefined, network ? 'UNAVAILABLE' : 'PROTOCOL', network]
  return new ConductorError(code as ErrorCode, `${doing} failed: ${error.message}${reasonOf(error)}`, {
    retryable,
    cause: error,
  })
}

/** What undici keeps in the cause of its "fetch failed", such as whom it could not reach. */
function reasonOf({ name, cause }: Error): string {
  if (name !== 'TypeError' || !(cause instanceof Error)) return ''
  return `: ${cause.message || (cause as NodeJS.ErrnoException).code}`
}

const unsentCodes = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'ERR_INVALID_URL'])

/** Whether a request certainly reached nobody: there was no connection to send it over. */
export function wasNeverSent(error: ConductorError): boolean {
  const { cause } = error.cause instanceof Error ? error.cause : {}
  return unsentCodes.has((cause as NodeJS.ErrnoException | undefined)?.code ?? '')
}

/** What the SDK makes of a remote call whose connection broke: its base class, with no status and no cause. */
function isUnansweredCall(error: Error): boolean {
  const { statusCode } = error as { statusCode?: unknown }
  return error.constructor === SandboxError && statusCode === undefined
}

/** Whether an error says that the sandbox no longer exists. */
export function isGone(error: unknown): error is ConductorError {
  return isConductorError(error) && error.code === 'SANDBOX_GONE'
}
