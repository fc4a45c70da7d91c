import { parseArgs } from 'node:util'
import { Conductor } from '../conductor/conductor.js'
import type { TaskSummary } from '../results/tasks.js'
import { onInterrupt } from './interrupts.js'
import { readableBytes } from './progress.js'
import { wholeNumber } from './whole-number.js'

/** `stu-conductor tasks`: printed as they come. */
export async function runTasks(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: { limit: { type: 'string' }, json: { type: 'boolean' } },
  })
  const limit = values.limit === undefined ? undefined : wholeNumber('--limit', values.limit, 1)
  await using conductor = new Conductor()
  for await (const task of conductor.tasks({ limit, signal: onInterrupt() })) {
    process.stdout.write(values.json ? `${JSON.stringify(task)}\n` : toLine(task))
  }
  return 0
}

function toLine({ taskId, state, outcome, updatedAt, resultCount, sizeBytes }: TaskSummary): string {
  const count = resultCount === undefined ? '?' : String(resultCount)
  const size = sizeBytes === undefined ? '?' : readableBytes(sizeBytes)
  return `${[taskId, outcome ?? state, updatedAt.toISOString(), count, size].join('\t')}\n`
}
