import { ConductorError } from '../../errors.js'

/** The error for a bucket that is named while nothing says how to reach it. */
export function noCredentials(bucket: string): ConductorError {
  return new ConductorError(
    'ACCESS_DENIED',
    `no credentials for bucket ${bucket}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a grant`,
  )
}
