import { FENCE_ID } from '../../protocol/spool-layout.js'
import { drain } from '../drain.js'
import { resolveTaskId } from '../persist.js'
import { readSettings } from '../settings.js'
import { parseOptions, usageError } from './arguments.js'
import { EXIT, print, remark } from './output.js'

/** `persist-result drain`: exit status 0 whenever the report could be made, whatever it says. */
export async function drainCommand(argv: readonly string[]): Promise<number> {
  const { values } = parseOptions({
    args: [...argv],
    options: {
      'task-id': { type: 'string', short: 't' },
      output: { type: 'string', short: 'o', multiple: true },
      json: { type: 'boolean' },
      seal: { type: 'string' },
    },
  })
  const { seal } = values
  if (seal !== undefined && !FENCE_ID.test(seal)) throw usageError('--seal must be the id of a fence')
  const settings = readSettings(process.env, remark)
  const taskId = resolveTaskId(values['task-id'], settings)
  const report = await drain(settings, taskId, values.output ?? [], seal)
  if (values.json === true) {
    await print(`${JSON.stringify(report)}\n`)
    return EXIT.stored
  }
  for (const { path, status, key, error } of report.outputs) {
    await print(`${status}\t${path}${key === null ? '' : `\t${key}`}${error === null ? '' : `\t${error}`}\n`)
  }
  const pending = report.records.filter(({ stored }) => stored.length === 0).length
  await print(`${report.records.length} results, ${pending} of them only in the local spool\n`)
  return EXIT.stored
}
