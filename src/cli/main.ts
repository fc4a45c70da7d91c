#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { isConductorError } from '../errors.js'
import { runLocal } from './local.js'
import { runResults } from './results.js'
import { runTask } from './run-task.js'
import { UsageError } from './usage-error.js'

const HELP = `Usage: stu-conductor COMMAND

  run [--task-id ID] [--output PATH]... [--file LOCAL:PATH]... -- COMMAND
                          run a command in a sandbox, keep what it leaves, print its receipt
  results list TASK       what a task left (--name GLOB, --json)
  results get KEY         one result to stdout, or to a file with -o FILE
  results url KEY         a link that works for an hour (--expires SECONDS)
  results download TASK DIR
                          everything a task left, verified
  local                   an E2B and an S3 on this machine, for development; prints the variables to set

  --help, --version

Settings come from the environment: E2B_API_KEY, E2B_TEMPLATE_ID, WORKER_RESULTS_S3_BUCKET,
WORKER_RESULTS_S3_PREFIX, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL_S3, …

Exit codes: 0 done, 1 failed, 2 wrong usage; "run" exits with the command's own status.
`

async function main(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv
  switch (command) {
    case 'run':
      return runTask(rest)
    case 'results':
      return runResults(rest)
    case 'local':
      return runLocal(rest)
    case '--version':
      process.stdout.write(`${readVersion()}\n`)
      return 0
    case '--help':
    case '-h':
    case 'help':
      process.stdout.write(HELP)
      return 0
    case undefined:
      process.stderr.write(HELP)
      return 2
    default:
      throw new UsageError(`unknown command ${JSON.stringify(command)}`)
  }
}

function readVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  // parseArgs throws TypeErrors with codes of its own.
  const usage =
    error instanceof UsageError || (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS')
  const invalid = isConductorError(error) && error.code === 'INVALID_OPTION'
  const message = error instanceof Error ? error.message : String(error)
  const code = isConductorError(error) ? ` [${error.code}]` : ''
  process.stderr.write(`stu-conductor: ${message}${code}\n`)
  if (usage) process.stderr.write('see stu-conductor --help\n')
  process.exitCode = usage || invalid ? 2 : 1
}
