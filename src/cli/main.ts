#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { surviveBrokenOutput } from './broken-output.js'
import { runEstimate } from './estimate.js'
import { asksForHelp, helpOf, isCommand } from './help.js'
import { runKeys } from './keys.js'
import { runLocal } from './local.js'
import { runLifecycle, runPrune } from './prune.js'
import { runRehome } from './rehome.js'
import { reportError } from './report-error.js'
import { runResults } from './results.js'
import { runTask } from './run-task.js'
import { runTasks } from './tasks.js'
import { UsageError } from './usage-error.js'

async function main(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv
  if (asksForHelp(argv)) {
    process.stdout.write(helpOf(command))
    return 0
  }
  switch (command) {
    case 'run':
      return runTask(rest)
    case 'results':
      return runResults(rest)
    case 'tasks':
      return runTasks(rest)
    case 'prune':
      return runPrune(rest)
    case 'lifecycle':
      return runLifecycle(rest)
    case 'rehome':
      return runRehome(rest)
    case 'estimate':
      return runEstimate(rest)
    case 'keys':
      return runKeys(rest)
    case 'local':
      return runLocal(rest)
    case '--version':
      process.stdout.write(`${readVersion()}\n`)
      return 0
    case 'help':
      process.stdout.write(helpOf(rest[0]))
      return 0
    case undefined:
      process.stderr.write(helpOf())
      return 2
    default:
      throw new UsageError(`unknown command ${JSON.stringify(command)}`)
  }
}

function readVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

surviveBrokenOutput()
try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  const [command] = process.argv.slice(2)
  process.exitCode = reportError(error, `stu-conductor ${isCommand(command) ? `${command} ` : ''}--help`)
}
