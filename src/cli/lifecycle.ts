import { parseArgs } from 'node:util'
import { normalizePrefix } from '../protocol/environment.js'
import { lifecycleRule } from '../results/lifecycle-rule.js'
import { olderThanDays } from './older-than-days.js'

/** `stu-conductor lifecycle`: the rules to stdout, for the AWS CLI. */
export function runLifecycle(argv: readonly string[]): number {
  const { values } = parseArgs({
    args: [...argv],
    options: { 'older-than-days': { type: 'string' }, prefix: { type: 'string' } },
  })
  const set = process.env.WORKER_RESULTS_S3_PREFIX
  const prefix = values.prefix ?? (set === undefined || set === '' ? undefined : normalizePrefix(set))
  process.stdout.write(
    `${JSON.stringify(lifecycleRule({ olderThanDays: olderThanDays(values), prefix }), undefined, 2)}\n`,
  )
  return 0
}
