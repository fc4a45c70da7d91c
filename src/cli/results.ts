import { pipeline } from 'node:stream/promises'
import { parseArgs } from 'node:util'
import { Conductor } from '../conductor/conductor.js'
import { ConductorError } from '../errors.js'
import { assertKey } from '../protocol/key.js'
import type { Result } from '../results/result.js'
import { readChunks } from '../streams/web-stream.js'
import { onInterrupt } from './interrupts.js'
import { printable } from './printable.js'
import { UsageError } from './usage-error.js'

/** `stu-conductor results …` */
export async function runResults(argv: readonly string[]): Promise<number> {
  const [action, ...args] = argv
  await using conductor = new Conductor()
  const signal = onInterrupt()
  switch (action) {
    case 'list':
      return list(conductor, args, signal)
    case 'get':
      return get(conductor, args, signal)
    case 'url':
      return url(conductor, args, signal)
    case 'download':
      return download(conductor, args, signal)
    default:
      throw new UsageError(
        `results: ${action === undefined ? 'say' : `unknown action ${JSON.stringify(action)}, use`} list, get, url or download`,
      )
  }
}

async function list(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { name: { type: 'string' }, json: { type: 'boolean' } },
  })
  const results = conductor.results(only(positionals, 'results list TASK'))
  const found = await (values.name === undefined ? results : results({ name: values.name })).list({ signal })
  for (const { store, error } of found.unavailable) {
    process.stderr.write(`stu-conductor: ${store} could not answer: ${error.message}\n`)
  }
  for (const result of found)
    process.stdout.write(values.json ? `${JSON.stringify(toJson(result))}\n` : toLine(result))
  return found.unavailable.length > 0 ? 1 : 0
}

function toLine(result: Result): string {
  const metadata = JSON.stringify(result.metadata)
  return `${printable(result.key)}\t${result.size}\t${result.tiers.join(',')}\t${printable(metadata)}\n`
}

function toJson(result: Result): object {
  const { key, size, sha256, contentType, metadata, tiers, archive } = result
  return {
    key,
    size,
    sha256,
    contentType,
    metadata,
    tiers,
    archive,
    createdAt: result.createdAt.toISOString(),
  }
}

async function get(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { output: { type: 'string', short: 'o' } },
  })
  const result = await find(conductor, only(positionals, 'results get KEY'), signal)
  if (values.output !== undefined) await result.save(values.output, { signal })
  else await pipeline(readChunks(result.stream({ signal })), process.stdout, { end: false })
  return 0
}

async function url(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { expires: { type: 'string', default: '3600' } },
  })
  const result = await find(conductor, only(positionals, 'results url KEY'), signal)
  process.stdout.write(`${await result.url({ expiresInSeconds: Number(values.expires), signal })}\n`)
  return 0
}

async function download(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { positionals } = parseArgs({ args, allowPositionals: true })
  const [taskId, dir, ...more] = positionals
  if (taskId === undefined || dir === undefined || more.length > 0)
    throw new UsageError('results download TASK DIR')
  const { saved, skipped } = await conductor.results(taskId).download(dir, {
    signal,
    onProgress: ({ doneFiles, totalFiles, doneBytes }) => {
      if (process.stderr.isTTY) process.stderr.write(`\r${doneFiles}/${totalFiles} files, ${doneBytes} bytes`)
    },
  })
  if (process.stderr.isTTY) process.stderr.write('\n')
  for (const { path } of [...saved, ...skipped]) process.stdout.write(`${printable(path)}\n`)
  return 0
}

async function find(conductor: Conductor, key: string, signal: AbortSignal): Promise<Result> {
  const result = await conductor.results(assertKey(key).taskId).get(key, { signal })
  if (result === undefined) throw new ConductorError('NOT_FOUND', `no tier has ${key}`)
  return result
}

function only(positionals: readonly string[], usage: string): string {
  const [first, ...more] = positionals
  if (first === undefined || more.length > 0) throw new UsageError(usage)
  return first
}
