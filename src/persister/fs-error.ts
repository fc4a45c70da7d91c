import { ConductorError, type ErrorCode, isConductorError } from '../errors.js'
import { systemCode } from '../files/system-code.js'

const codes: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'NOT_FOUND',
  ENOTDIR: 'NOT_FOUND',
  EACCES: 'ACCESS_DENIED',
  EPERM: 'ACCESS_DENIED',
  EROFS: 'ACCESS_DENIED',
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  EFBIG: 'TOO_LARGE',
}

const wordings: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  ENOTDIR: 'a part of the path is not a directory',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  EROFS: 'read-only file system',
  ENOSPC: 'no space left on device',
  EDQUOT: 'disk quota exceeded',
}

/** One line about an error of any origin. */
export function describeError(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text.replace(/\s+/g, ' ').trim() || 'unknown error'
}

/** Turns a file system's error into a typed one that says what was being done; typed ones pass through. */
export function mapFsError(error: unknown, doing: string): ConductorError {
  if (isConductorError(error)) return error
  const system = systemCode(error)
  const code = (system === undefined ? undefined : codes[system]) ?? 'UNAVAILABLE'
  const why = (system === undefined ? undefined : wordings[system]) ?? describeError(error)
  return new ConductorError(code, `${doing}: ${why}`, { cause: error })
}
