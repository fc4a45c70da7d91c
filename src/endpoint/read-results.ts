import { parseKey, taskIdProblem } from '../protocol/key.js'
import type { ResultRecord } from '../protocol/record.js'
import { requireEveryTask, requireTask } from './access.js'
import { hasPrecondition, hasSame, requireSame, unmet, wantedRange } from './conditions.js'
import type { EndpointContext } from './context.js'
import { HttpError } from './http-error.js'
import { jsonResponse, plainResponse } from './respond.js'
import { attachment, safeMediaType } from './safe-headers.js'

/** Each task of a page is looked into, so that a page has to stay small. */
const TASKS_PER_PAGE = 200
/** A page ends once its records exceed this; with one record more it stays well below what readers take. */
const MAX_PAGE_BYTES = 4 << 20

/** `GET` of the endpoint itself: one page of a task's records, or of the tasks there are. */
export async function listResults(request: Request, context: EndpointContext): Promise<Response> {
  const { options, principal, url } = context
  if (url.searchParams.has('tasks')) return listTasks(request, context)
  const taskId = parameter(url, 'task_id')
  if (taskId === undefined) throw badQuery('task_id is missing: say whose results are wanted')
  const problem = taskIdProblem(taskId)
  if (problem !== undefined) throw badQuery(`task_id ${problem}`)
  requireTask(principal, taskId)
  const { records, next } = await options.backend.list(taskId, {
    after:
      readCursor(taskId, parameter(url, 'cursor')) ?? readStart(taskId, parameter(url, 'start_after')) ?? '',
    limit: options.limits.pageSize,
    maxBytes: MAX_PAGE_BYTES,
    signal: request.signal,
  })
  return jsonResponse(200, {
    results: records,
    ...(next === undefined ? {} : { next: Buffer.from(next).toString('base64url') }),
  })
}

async function listTasks(
  { signal }: Request,
  { options, principal, url }: EndpointContext,
): Promise<Response> {
  requireEveryTask(principal)
  if (url.searchParams.has('task_id')) throw badQuery('say tasks or task_id, not both')
  const after = parameter(url, 'cursor') ?? ''
  if (after !== '' && taskIdProblem(after) !== undefined) throw badQuery('cursor is not one of this list')
  const { tasks, next } = await options.backend.listTasks({ after, limit: TASKS_PER_PAGE, signal })
  return jsonResponse(200, {
    tasks: tasks.map(({ taskId, updatedAt, count, sizeBytes }) => ({
      task_id: taskId,
      updated_at: updatedAt.toISOString(),
      results: count,
      size: sizeBytes,
    })),
    ...(next === undefined ? {} : { next }),
  })
}

/** `GET` of a result's record. */
export async function getRecord(request: Request, key: string, context: EndpointContext): Promise<Response> {
  return jsonResponse(200, await find(request, key, context))
}

/** `GET` of a result: its bytes, whole or in part. The caller drops the body for `HEAD`. */
export async function getResult(request: Request, key: string, context: EndpointContext): Promise<Response> {
  const record = await find(request, key, context)
  const { etag, modifiedAt } = validatorsOf(record)
  requireSame(request, etag, modifiedAt)
  const headers = {
    'cache-control': 'private, no-cache',
    etag,
    'last-modified': modifiedAt.toUTCString(),
  }
  if (hasSame(request, etag)) return plainResponse(304, null, headers)
  const range = request.method === 'GET' ? wantedRange(request, etag, record.size) : undefined
  const { start, end } = range ?? { start: 0, end: record.size }
  const wanted = { start, end, signal: request.signal }
  const body = request.method === 'GET' ? await context.options.backend.open(key, wanted) : null
  return plainResponse(range === undefined ? 200 : 206, body, {
    ...headers,
    'accept-ranges': 'bytes',
    'content-type': safeMediaType(record.content_type),
    'content-length': String(end - start),
    'content-disposition': attachment(record.name),
    ...(range === undefined ? {} : { 'content-range': `bytes ${start}-${end - 1}/${record.size}` }),
  })
}

/** `DELETE` of a result. */
export async function deleteResult(
  request: Request,
  key: string,
  context: EndpointContext,
): Promise<Response> {
  const { options, quotas } = context
  if (hasPrecondition(request)) {
    // What lies under a key never changes, so that this stays true until it is gone.
    const { etag, modifiedAt } = validatorsOf(await find(request, key, context))
    requireSame(request, etag, modifiedAt)
    if (hasSame(request, etag)) throw unmet()
  }
  if (!(await options.backend.delete(key))) throw noSuchResult()
  quotas.forget(parseKey(key)?.taskId ?? '')
  return plainResponse(204, null)
}

async function find(request: Request, key: string, { options }: EndpointContext): Promise<ResultRecord> {
  const record = await options.backend.read(key, { signal: request.signal })
  if (record === undefined) throw noSuchResult()
  return record
}

function validatorsOf(record: ResultRecord): { readonly etag: string; readonly modifiedAt: Date } {
  return { etag: `"${record.sha256}"`, modifiedAt: new Date(record.created_at) }
}

/** A parameter's one value; the same one twice is ambiguous. */
function parameter(url: URL, name: string): string | undefined {
  const values = url.searchParams.getAll(name)
  if (values.length > 1) throw badQuery(`${name} comes twice`)
  return values[0]
}

function readCursor(taskId: string, cursor: string | undefined): string | undefined {
  if (cursor === undefined) return undefined
  const key = Buffer.from(cursor, 'base64url').toString('utf8')
  if (parseKey(key)?.taskId !== taskId) throw badQuery('cursor is not one of this list')
  return key
}

function readStart(taskId: string, key: string | undefined): string | undefined {
  if (key !== undefined && parseKey(key)?.taskId !== taskId) {
    throw badQuery('start_after must be a key of the task')
  }
  return key
}

function badQuery(message: string): HttpError {
  return new HttpError(400, 'invalid_query', message)
}

function noSuchResult(): HttpError {
  return new HttpError(404, 'not_found', 'no such result')
}
