#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { surviveBrokenOutput } from './broken-output.js'
import { asksForHelp, helpOf, isCommand } from './help.js'
import { reportError } from './report-error.js'
import { UsageError } from './usage-error.js'

async function main(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv
  if (asksForHelp(argv)) {
    process.stdout.write(helpOf(command))
    return 0
  }
  // Each loads what it needs: the SDKs take longer to load than some commands to run.
  switch (command) {
    case 'run':
      return (await import('./run-task.js')).runTask(rest)
    case 'results':
      return (await import('./results.js')).runResults(rest)
    case 'tasks':
      return (await import('./tasks.js')).runTasks(rest)
    case 'prune':
      return (await import('./prune.js')).runPrune(rest)
    case 'lifecycle':
      return (await import('./lifecycle.js')).runLifecycle(rest)
    case 'rehome':
      return (await import('./rehome.js')).runRehome(rest)
    case 'estimate':
      return (await import('./estimate.js')).runEstimate(rest)
    case 'keys':
      return (await import('./keys.js')).runKeys(rest)
    case 'local':
      return (await import('./local.js')).runLocal(rest)
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
