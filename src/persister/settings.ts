import { type ResultsEnvironment, readEnvironment } from '../protocol/environment.js'
import { type Limits, readLimits } from './remote/limits.js'

/** What the environment says, and where remarks go. */
export interface Settings {
  readonly env: ResultsEnvironment
  /** The spool, without a slash at its end. */
  readonly localDir: string
  readonly limits: Limits
  /** Takes one line for people, without a line end. */
  readonly warn: (line: string) => void
}

/** Settings from an environment. */
export function readSettings(
  variables: Readonly<Record<string, string | undefined>>,
  warn: (line: string) => void,
): Settings {
  const env = readEnvironment(variables)
  const localDir = env.localDir.length > 1 ? env.localDir.replace(/\/+$/, '') : env.localDir
  return { env: { ...env, localDir }, localDir, limits: readLimits(variables), warn }
}
