import type { Readable } from 'node:stream'
import { ConductorError } from '../errors.js'
import { assertTaskId, compareKeys } from '../protocol/key.js'
import type { JsonObject, ResultRecord } from '../protocol/record.js'
import { Courier, type Requirement, satisfies } from './courier.js'
import { type Flushed, flushTask } from './deliver.js'
import { openInput, toMetadata } from './input.js'
import { persist, resolveTaskId } from './persist.js'
import { readSettings, type Settings } from './settings.js'
import { listSpool, listTasks } from './spool/scan.js'

/** What every function of the module takes besides its own options. */
export interface CommonOptions {
  /** Variables to read instead of the process's own environment. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  /** Takes remarks, one line each. @default writes them to standard error */
  readonly warn?: ((line: string) => void) | undefined
}

/** Options of {@link persistResult}. */
export interface PersistOptions extends CommonOptions {
  /** @default the path's last segment; content needs one */
  readonly name?: string | undefined
  /** Any JSON object of at most 100 levels. @default {} */
  readonly metadata?: object | undefined
  /** @default `WORKER_ID` */
  readonly taskId?: string | undefined
  /** @default by the name's ending */
  readonly contentType?: string | undefined
  /** Where the result has to get to; it rejects with `UNDELIVERED` otherwise, although the result is stored. */
  readonly require?: 's3' | 'http' | 'remote' | undefined
  /** What a string is. @default a path if it exists, else content */
  readonly as?: 'path' | 'content' | undefined
  /** Gives up on remote tiers; the result is then in the spool, and the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/** Options of {@link flush}. */
export interface FlushOptions extends CommonOptions {
  /** @default `WORKER_ID` */
  readonly taskId?: string | undefined
  /** Where the results have to get to; without it any remote tier will do. */
  readonly require?: 's3' | 'http' | 'remote' | undefined
}

function settingsOf(options: CommonOptions): Settings {
  const warn = options.warn ?? ((line: string) => void process.stderr.write(`persist-result: ${line}\n`))
  return readSettings(options.env ?? process.env, warn)
}

/** Says that a result is stored, but not where it had to be. */
export function undelivered(record: ResultRecord, requirement: Requirement): ConductorError {
  const where = record.stored.map(({ tier }) => tier).join(', ') || 'local'
  return new ConductorError('UNDELIVERED', `${record.key} is stored (${where}) but not in ${requirement}`)
}

/**
 * Stores a file, a directory (as `.tar.gz`) or content. Resolves once the result is safe: in the spool, synced, and in the
 * first remote tier that took it; `stored` says which. Rejects when it is stored nowhere.
 */
export async function persistResult(
  input: string | Uint8Array | Readable,
  options: PersistOptions = {},
): Promise<ResultRecord> {
  const settings = settingsOf(options)
  options.signal?.throwIfAborted()
  const metadata: JsonObject = options.metadata === undefined ? {} : toMetadata(options.metadata)
  const description = {
    taskId: resolveTaskId(options.taskId, settings),
    name: options.name,
    metadata,
    contentType: options.contentType,
  }
  const source = await openInput(input, options.name, options.as)
  try {
    const record = await persist(settings, source, description, options.require, { signal: options.signal })
    if (!satisfies(record, options.require)) throw undelivered(record, options.require)
    return record
  } finally {
    await source.close()
  }
}

/** Every result of a task in the spool, in key order. @param taskId default `WORKER_ID`, else all tasks */
export async function listResults(taskId?: string, options: CommonOptions = {}): Promise<ResultRecord[]> {
  const settings = settingsOf(options)
  const one = taskId ?? settings.env.workerId
  if (one !== undefined) assertTaskId(one)
  const tasks = one === undefined ? listTasks(settings.localDir) : [one]
  const lists: ResultRecord[] = []
  for (const task of tasks) lists.push(...(await listSpool(settings.localDir, task)))
  return lists.sort((a, b) => compareKeys(a.key, b.key))
}

/** A result's bytes, checked against their digest; from the spool, else from S3 or the HTTP endpoint. */
export async function retrieveResult(key: string, options: CommonOptions = {}): Promise<Buffer> {
  let chunks: Buffer[] = []
  // Reading back needs streams, which take time to load that storing need not spend.
  const { retrieve } = await import('./retrieve.js')
  await retrieve(settingsOf(options), key, {
    restart: async () => {
      chunks = []
    },
    take: async (chunk) => {
      chunks.push(chunk)
    },
  })
  return Buffer.concat(chunks)
}

/** Delivers what no remote tier has yet. Gives what was delivered and what still is not. */
export async function flush(options: FlushOptions = {}): Promise<Flushed> {
  const settings = settingsOf(options)
  const taskId = resolveTaskId(options.taskId, settings)
  return await flushTask(settings, new Courier(settings, taskId), taskId, options.require, {})
}
