import { flush as flushPending } from '../api.js'
import { satisfies } from '../courier.js'
import { readSettings } from '../settings.js'
import { parseRequest, type Request } from './arguments.js'
import { complain, EXIT, exitStatusOf, leave, print, printRecord, remark } from './output.js'

async function flushCommand(request: Extract<Request, { kind: 'flush' }>): Promise<number> {
  const { delivered, pending } = await flushPending({
    taskId: request.taskId,
    require: request.require,
    warn: remark,
  })
  for (const record of delivered) await printRecord(record, request.json)
  const missing = pending.filter((record) => !satisfies(record, request.require)).length
  if (pending.length > 0 && !request.quiet)
    remark(`${pending.length} results are still only in the local spool`)
  return missing > 0 ? EXIT.notWhereRequired : EXIT.stored
}

async function dispatch(argv: readonly string[]): Promise<number> {
  const [first, ...rest] = argv
  if (first === 'run') return await (await import('../supervise/run-command.js')).runCommand(rest)
  if (first === 'drain') return await (await import('./drain.js')).drainCommand(rest)
  const request = parseRequest(argv)
  if (request.kind === 'help') {
    await print((await import('./usage.js')).USAGE)
    return EXIT.stored
  }
  if (request.kind === 'version') {
    await print(`persist-result ${(await import('../version.js')).VERSION} (node ${process.versions.node})\n`)
    return EXIT.stored
  }
  if (request.kind === 'flush') return await flushCommand(request)
  const settings = readSettings(process.env, remark)
  if (request.kind === 'store') return await (await import('./store.js')).storePaths(settings, request)
  const { listCommand, retrieveCommand } = await import('./read-back.js')
  return request.kind === 'list'
    ? await listCommand(request.taskId, request.json)
    : await retrieveCommand(settings, request.key, request.output)
}

/** Runs the command line of this process and ends it. */
export async function main(): Promise<never> {
  let status: number
  try {
    status = await dispatch(process.argv.slice(2))
  } catch (error) {
    complain(error)
    status = exitStatusOf(error)
  }
  return await leave(status)
}
