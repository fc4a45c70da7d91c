import { parseArgs } from 'node:util'
import { Conductor } from '../conductor/conductor.js'
import type { PruneReport } from '../results/prune.js'
import { confirm } from './ask.js'
import { onInterrupt } from './interrupts.js'
import { mayLack } from './may-lack.js'
import { olderThanDays } from './older-than-days.js'
import { ProgressLine, readableBytes } from './progress.js'

/** `stu-conductor prune`: says what would go, asks, and deletes it. */
export async function runPrune(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      'older-than-days': { type: 'string' },
      tasks: { type: 'string' },
      unsealed: { type: 'boolean' },
      'dry-run': { type: 'boolean' },
      yes: { type: 'boolean' },
      json: { type: 'boolean' },
    },
  })
  const options = { olderThanDays: olderThanDays(values), tasks: values.tasks, unsealed: values.unsealed }
  const signal = onInterrupt()
  await using conductor = new Conductor()
  if (values['dry-run']) {
    return print(await conductor.prune({ ...options, dryRun: true, signal }), values.json)
  }
  if (!values.yes) {
    const plan = await conductor.prune({ ...options, dryRun: true, signal })
    if (plan.tasks.length === 0) return print(plan, values.json)
    const what = `delete ${plan.tasks.length} task(s) with ${plan.results} result(s), ${readableBytes(plan.sizeBytes)}`
    if (!(await confirm(what, false, signal))) return 1
  }
  const line = new ProgressLine()
  const report = await conductor.prune({
    ...options,
    signal,
    onProgress: ({ doneTasks, totalTasks, results, sizeBytes }) =>
      line.show(
        `${doneTasks}/${totalTasks} tasks looked at, ${results} results deleted, ${readableBytes(sizeBytes)}`,
      ),
  })
  line.end()
  return print(report, values.json)
}

function print(report: PruneReport, json: boolean | undefined): number {
  const { dryRun, tasks, results, sizeBytes, skipped, failed, unavailable } = report
  const failures = failed.map(({ taskId, error }) => ({ taskId, code: error.code, message: error.message }))
  const silent = unavailable.map(({ store, error }) => ({ store, code: error.code, message: error.message }))
  if (json) {
    const plain = { dryRun, tasks, results, sizeBytes, skipped, failed: failures, unavailable: silent }
    process.stdout.write(`${JSON.stringify(plain)}\n`)
  } else {
    for (const task of tasks) {
      process.stdout.write(`${task.taskId}\t${task.results}\t${readableBytes(task.sizeBytes)}\n`)
    }
    for (const { taskId, reason } of skipped) process.stderr.write(`${taskId} stays: ${reason}\n`)
    for (const { taskId, message } of failures) process.stderr.write(`${taskId} failed: ${message}\n`)
    for (const { store, message } of silent) process.stderr.write(`${store}: ${message}\n`)
    const said = dryRun ? 'would be deleted' : 'deleted'
    process.stderr.write(
      `${tasks.length} task(s), ${results} result(s), ${readableBytes(sizeBytes)} ${said}\n`,
    )
  }
  return failures.length > 0 || mayLack(unavailable) ? 1 : 0
}
