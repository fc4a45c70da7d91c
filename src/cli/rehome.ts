import { parseArgs } from 'node:util'
import { Conductor } from '../conductor/conductor.js'
import type { RehomeReport } from '../conductor/reading/rehome.js'
import { onInterrupt } from './interrupts.js'
import { mayLack } from './may-lack.js'
import { printable } from './printable.js'
import { ProgressLine, readableBytes } from './progress.js'
import { UsageError } from './usage-error.js'

/** `stu-conductor rehome`: what is moved goes to stdout as it is moved, or all of it at the end as JSON. */
export async function runRehome(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: { tasks: { type: 'string' }, json: { type: 'boolean' } },
  })
  if (values.tasks !== undefined && positionals.length > 0) {
    throw new UsageError('rehome takes TASK... or --tasks GLOB')
  }
  const tasks = values.tasks ?? (positionals.length === 0 ? undefined : positionals)
  await using conductor = new Conductor()
  const line = new ProgressLine()
  let results = 0
  let sizeBytes = 0
  const report = await conductor
    .rehome({
      tasks,
      signal: onInterrupt(),
      onMoved: (moved) => {
        results += 1
        sizeBytes += moved.sizeBytes
        line.show(`${results} results copied into S3, ${readableBytes(sizeBytes)}`)
      },
    })
    .finally(() => line.end())
  return print(report, values.json)
}

function print({ moved, failed, unavailable }: RehomeReport, json: boolean | undefined): number {
  const failures = failed.map(({ key, error }) => ({ key, code: error.code, message: error.message }))
  // Of each place once, of however many tasks it could not be asked.
  const byStore = new Map(unavailable.map(({ store, error }) => [store, error]))
  const silent = [...byStore].map(([store, { code, message }]) => ({ store, code, message }))
  if (json) {
    process.stdout.write(`${JSON.stringify({ moved, failed: failures, unavailable: silent })}\n`)
  } else {
    for (const { key, from } of moved) process.stdout.write(`${printable(key)}\t${from.join(',')}\n`)
    for (const { key, message } of failures) process.stderr.write(`${printable(key)} stays: ${message}\n`)
    for (const { store, message } of silent) process.stderr.write(`${store}: ${message}\n`)
    const sizeBytes = moved.reduce((sum, one) => sum + one.sizeBytes, 0)
    process.stderr.write(`${moved.length} result(s), ${readableBytes(sizeBytes)}, copied into S3\n`)
  }
  return failures.length > 0 || mayLack(unavailable) ? 1 : 0
}
