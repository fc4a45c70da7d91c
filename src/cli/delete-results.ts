import { parseArgs } from 'node:util'
import type { Conductor } from '../conductor/conductor.js'
import type { DeleteReport } from '../results/delete-results.js'
import { confirm } from './ask.js'
import { chooseResults, findResult, type ResultValues, resultOptions } from './choose-results.js'
import { filterOf } from './filter-options.js'
import { mayLack } from './may-lack.js'
import { printable } from './printable.js'
import { readableBytes } from './progress.js'
import { UsageError } from './usage-error.js'

/** `stu-conductor results delete …`: says what would go, asks, and deletes it on every tier. */
export async function deleteResults(
  conductor: Conductor,
  args: string[],
  signal: AbortSignal,
): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...resultOptions, 'dry-run': { type: 'boolean' }, yes: { type: 'boolean' } },
  })
  const key = positionals.find((word) => word.includes('/'))
  if (key !== undefined) {
    const narrowed = Object.keys(filterOf(values)).length > 0
    if (positionals.length > 1 || values.tasks !== undefined || narrowed) {
      throw new UsageError('results delete KEY takes no other result and no filter')
    }
    return deleteOne(conductor, key, values, signal)
  }
  const results = chooseResults(conductor, positionals, values, 'results delete TASK, KEY or --tasks GLOB')
  const found = await results.list({ signal, metadata: false })
  const sizeBytes = found.reduce((sum, { size }) => sum + size, 0)
  const what = `delete ${found.length} result(s), ${readableBytes(sizeBytes)}, on every tier`
  if (values['dry-run']) {
    for (const { key } of found) process.stdout.write(`${printable(key)}\n`)
    process.stderr.write(`would ${what}\n`)
    return 0
  }
  if (found.length > 0 && !(await confirm(what, values.yes, signal))) return 1
  return print(await results.delete(undefined, { signal }), values.json)
}

async function deleteOne(
  conductor: Conductor,
  key: string,
  values: ResultValues & {
    readonly 'dry-run'?: boolean | undefined
    readonly yes?: boolean | undefined
    readonly json?: boolean | undefined
  },
  signal: AbortSignal,
): Promise<number> {
  const result = await findResult(conductor, key, values, signal)
  if (values['dry-run']) {
    process.stdout.write(`${printable(key)}\n`)
    return 0
  }
  if (!(await confirm(`delete ${printable(key)} on every tier`, values.yes, signal))) return 1
  const deleted = await result.delete({ signal })
  return print({ deleted: [deleted], failed: [], unavailable: [] }, values.json)
}

function print({ deleted, failed, unavailable }: DeleteReport, json: boolean | undefined): number {
  const failures = failed.map(({ key, tiers, problems }) => ({
    key,
    tiers,
    problems: problems.map(({ store, error }) => ({ store, code: error.code, message: error.message })),
  }))
  const silent = unavailable.map(({ store, error }) => ({ store, code: error.code, message: error.message }))
  if (json) {
    process.stdout.write(`${JSON.stringify({ deleted, failed: failures, unavailable: silent })}\n`)
  } else {
    for (const { key, tiers } of deleted) process.stdout.write(`${printable(key)}\t${tiers.join(',')}\n`)
    for (const { key, problems } of failures) {
      const said = problems.map(({ store, message }) => `${store}: ${message}`).join('; ')
      process.stderr.write(`${printable(key)} failed: ${said}\n`)
    }
    for (const { store, message } of silent) process.stderr.write(`${store}: ${message}\n`)
  }
  return failures.length > 0 || mayLack(unavailable) ? 1 : 0
}
