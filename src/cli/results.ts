import { pipeline } from 'node:stream/promises'
import { parseArgs } from 'node:util'
import { Conductor } from '../conductor/conductor.js'
import { ConductorError } from '../errors.js'
import { assertKey } from '../protocol/key.js'
import { DownloadError, type DownloadReport } from '../results/download.js'
import type { Result } from '../results/result.js'
import { readChunks } from '../streams/web-stream.js'
import { chooseResults, resultOptions } from './choose-results.js'
import { deleteResults } from './delete-results.js'
import { onInterrupt } from './interrupts.js'
import { printable } from './printable.js'
import { ProgressLine, readableBytes } from './progress.js'
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
    case 'delete':
      return deleteResults(conductor, args, signal)
    default:
      throw new UsageError(
        `results: ${action === undefined ? 'say' : `unknown action ${JSON.stringify(action)}, use`} list, get, url, download or delete`,
      )
  }
}

async function list(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...resultOptions, unique: { type: 'boolean' } },
  })
  const results = chooseResults(conductor, positionals, values, 'results list TASK, or --tasks GLOB')
  const found = await results.list({ signal })
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
    encrypted: result.encrypted,
    contentSize: result.contentSize,
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
    options: { expires: { type: 'string', default: '3600' }, encrypted: { type: 'boolean' } },
  })
  const result = await find(conductor, only(positionals, 'results url KEY'), signal)
  const { expires, encrypted } = values
  process.stdout.write(`${await result.url({ expiresInSeconds: Number(expires), encrypted, signal })}\n`)
  return 0
}

async function download(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...resultOptions, extract: { type: 'boolean' } },
  })
  const usage = 'results download TASK DIR, or --tasks GLOB DIR'
  const dir = positionals.pop()
  if (dir === undefined) throw new UsageError(usage)
  const results = chooseResults(conductor, positionals, values, usage)
  const line = new ProgressLine()
  let report: DownloadReport
  try {
    report = await results.download(dir, {
      signal,
      extract: values.extract,
      onProgress: ({ doneFiles, totalFiles, doneBytes, totalBytes }) =>
        line.show(
          `${doneFiles}/${totalFiles} files, ${readableBytes(doneBytes)} of ${readableBytes(totalBytes)}`,
        ),
    })
  } catch (error) {
    if (!(error instanceof DownloadError)) throw error
    report = error.report
  } finally {
    line.end()
  }
  return printDownload(report, values.json)
}

function printDownload({ saved, skipped, failed }: DownloadReport, json: boolean | undefined): number {
  const failures = failed.map(({ key, path, error }) => ({
    key,
    path,
    code: error.code,
    message: error.message,
  }))
  if (json) process.stdout.write(`${JSON.stringify({ saved, skipped, failed: failures })}\n`)
  else {
    for (const { path } of [...saved, ...skipped]) process.stdout.write(`${printable(path)}\n`)
    for (const { message, code } of failures) {
      process.stderr.write(`stu-conductor: ${printable(message)} [${code}]\n`)
    }
  }
  return failures.length > 0 ? 1 : 0
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
