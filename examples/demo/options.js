import { parseArgs } from 'node:util'

export const HELP = `Usage: npm run demo -- [OPTION]…

Runs four workers side by side in sandboxes, terminates them, and then has somebody who never saw them
list, fetch and verify all they left.

  --live             use E2B and S3 from the environment instead of stand-ins on this machine
  --isolation KIND   how the stand-in keeps sandboxes apart: auto (default), namespaces or plain
  --json             print one line of JSON on stdout; progress goes to stderr
  --help             print this

Exit status: 0 when everything was listed, fetched and verified, 1 when not, 2 for wrong usage.
`

const KINDS = /** @type {const} */ (['auto', 'namespaces', 'plain'])

/** Where AWS credentials may come from besides a pair of keys; the AWS SDK finds them. */
const OTHER_CREDENTIALS = [
  'AWS_PROFILE',
  'AWS_WEB_IDENTITY_TOKEN_FILE',
  'AWS_CONTAINER_CREDENTIALS_RELATIVE_URI',
  'AWS_CONTAINER_CREDENTIALS_FULL_URI',
]

/** The user asked for something that cannot be; the message is one line for them. */
export class UsageError extends Error {}

/**
 * @typedef {object} DemoOptions
 * @property {boolean} json
 * @property {boolean} live
 * @property {boolean} help
 * @property {(typeof KINDS)[number] | undefined} isolation
 */

/**
 * Reads the command line. Throws a `UsageError` for anything it does not know.
 *
 * @param {readonly string[]} words
 * @returns {DemoOptions}
 */
export function parseOptions(words) {
  const { json, live, help, isolation } = parse(words)
  const kind = KINDS.find((known) => known === isolation)
  if (isolation !== undefined && kind === undefined) {
    throw new UsageError(`--isolation must be one of ${KINDS.join(', ')} (got "${isolation}")`)
  }
  if (live && isolation !== undefined)
    throw new UsageError('--isolation is for the local stand-in, not for --live')
  return { json, live, help, isolation: kind }
}

/** @param {readonly string[]} words */
function parse(words) {
  try {
    return parseArgs({
      args: [...words],
      options: {
        json: { type: 'boolean', default: false },
        live: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
        isolation: { type: 'string' },
      },
    }).values
  } catch (error) {
    const [sentence = ''] = error instanceof Error ? error.message.split('. ') : []
    throw new UsageError(`${sentence}; --help shows what there is`)
  }
}

/**
 * Throws a `UsageError` naming what `--live` lacks.
 *
 * @param {Readonly<Record<string, string | undefined>>} env
 */
export function assertLiveEnv(env) {
  const needed = ['E2B_API_KEY', 'WORKER_RESULTS_S3_BUCKET']
  if (!OTHER_CREDENTIALS.some((name) => env[name])) needed.push('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY')
  const missing = needed.filter((name) => !env[name])
  if (missing.length > 0) throw new UsageError(`--live needs ${missing.join(', ')} in the environment`)
}
