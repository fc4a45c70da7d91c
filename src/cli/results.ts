import { pipeline } from 'node:stream/promises'
import { parseArgs } from 'node:util'
import { Conductor } from '../conductor/conductor.js'
import { ConductorError } from '../errors.js'
import { DownloadError, type DownloadReport } from '../results/download-report.js'
import type { Result } from '../results/result.js'
import { readChunks } from '../streams/web-stream.js'
import { chooseResults, findResult, resultOptions } from './choose-results.js'
import { deleteResults } from './delete-results.js'
import { filterOptions } from './filter-options.js'
import { onInterrupt } from './interrupts.js'
import { mayLack } from './may-lack.js'
import { printable } from './printable.js'
import { ProgressLine, readableBytes } from './progress.js'
import { readingOptions } from './reading-options.js'
import { UsageError } from './usage-error.js'
import { wholeNumber } from './whole-number.js'

/** `stu-conductor results …` */
export async function runResults(argv: readonly string[]): Promise<number> {
  const [action, ...args] = argv
  await using conductor = new Conductor()
  const signal = onInterrupt()
  // Awaited here, since the conductor is closed before what is returned is waited for.
  switch (action) {
    case 'list':
      return await list(conductor, args, signal)
    case 'get':
      return await get(conductor, args, signal)
    case 'latest':
      return await latest(conductor, args, signal)
    case 'url':
      return await url(conductor, args, signal)
    case 'download':
      return await download(conductor, args, signal)
    case 'delete':
      return await deleteResults(conductor, args, signal)
    default:
      throw new UsageError(
        `results: ${action === undefined ? 'say' : `unknown action ${JSON.stringify(action)}, use`} list, get, latest, url, download or delete`,
      )
  }
}

async function list(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...resultOptions, unique: { type: 'boolean' }, limit: { type: 'string' } },
  })
  const limit = values.limit === undefined ? undefined : wholeNumber('--limit', values.limit, 1)
  const results = chooseResults(conductor, positionals, values, 'results list TASK, or --tasks GLOB')
  const found = await results.list({ limit, signal })
  for (const { store, error } of found.unavailable) {
    process.stderr.write(`stu-conductor: ${store} could not answer: ${error.message}\n`)
  }
  for (const result of found)
    process.stdout.write(values.json ? `${JSON.stringify(toJson(result))}\n` : toLine(result))
  if (found.length === 0 && !values.json) process.stderr.write('no results\n')
  return mayLack(found.unavailable) ? 1 : 0
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
    options: { ...readingOptions, output: { type: 'string', short: 'o' } },
  })
  const key = only(positionals, 'results get KEY')
  return put(await findResult(conductor, key, values, signal), values.output, signal)
}

async function latest(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...filterOptions, ...readingOptions, output: { type: 'string', short: 'o' } },
  })
  const taskId = only(positionals, 'results latest TASK')
  const result = await chooseResults(conductor, [taskId], values, '').latest(undefined, { signal })
  if (result === undefined) throw new ConductorError('NOT_FOUND', `${taskId} has no such result`)
  process.stderr.write(`${printable(result.key)}\n`)
  return put(result, values.output, signal)
}

async function put(result: Result, output: string | undefined, signal: AbortSignal): Promise<number> {
  if (output !== undefined) await result.save(output, { signal })
  else await pipeline(readChunks(result.stream({ signal })), process.stdout, { end: false })
  return 0
}

async function url(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      ...readingOptions,
      expires: { type: 'string', default: '3600' },
      filename: { type: 'string' },
      encrypted: { type: 'boolean' },
    },
  })
  const { expires, filename, encrypted } = values
  const expiresInSeconds = wholeNumber('--expires', expires, 1)
  const result = await findResult(conductor, only(positionals, 'results url KEY'), values, signal)
  process.stdout.write(`${await result.url({ expiresInSeconds, filename, encrypted, signal })}\n`)
  return 0
}

async function download(conductor: Conductor, args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...resultOptions, extract: { type: 'boolean' }, concurrency: { type: 'string' } },
  })
  const { extract } = values
  const concurrency =
    values.concurrency === undefined ? undefined : wholeNumber('--concurrency', values.concurrency, 1)
  const usage = 'results download TASK DIR, or --tasks GLOB DIR'
  const dir = positionals.pop()
  if (dir === undefined) throw new UsageError(usage)
  const results = chooseResults(conductor, positionals, values, usage)
  const line = new ProgressLine()
  let report: DownloadReport
  try {
    report = await results.download(dir, {
      signal,
      extract,
      concurrency,
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
    if (saved.length + skipped.length + failures.length === 0) process.stderr.write('no results\n')
  }
  return failures.length > 0 ? 1 : 0
}

function only(positionals: readonly string[], usage: string): string {
  const [first, ...more] = positionals
  if (first === undefined || more.length > 0) throw new UsageError(usage)
  return first
}
