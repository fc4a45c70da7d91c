import { ConductorError, type ErrorCode } from '../errors.js'

/** A failure of this machine's own file system, which no tier can mend. */
export class LocalError extends ConductorError {}

/** What this machine's file system says of itself, and not of what is read or written. */
export const LOCAL_CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  EACCES: 'ACCESS_DENIED',
  EPERM: 'ACCESS_DENIED',
  EROFS: 'ACCESS_DENIED',
}
