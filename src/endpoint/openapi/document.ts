import { z } from 'zod'
import type { ResolvedHandlerOptions } from '../options.js'
import { errorSchema, pageSchema, recordSchema, storedSchema, tasksPageSchema } from './schemas.js'

type Json = Readonly<Record<string, unknown>>

const refusals: Readonly<Record<number, string>> = {
  400: 'The form or the query is malformed, or the body is cut off.',
  401: 'No token, or one that is not valid or has expired.',
  403: 'The token is for another task, or does not allow this.',
  404: 'No such result.',
  405: 'This path has no such method; `Allow` names those it has.',
  408: 'Nothing of the body came for too long.',
  409: 'The key holds a result with other bytes, which stays as it is.',
  412: 'The result is not the one that `If-Match` or its like means.',
  413: 'The file, a field or the form is too large.',
  415: 'Results are posted as multipart/form-data.',
  416: 'The range lies beyond the end; `Content-Range` tells the size.',
  422: 'A field is missing or breaks a rule, or the file does not match `sha256`.',
  500: 'The endpoint failed.',
  503: 'The storage does not answer; `Retry-After` says when to try again.',
  507: 'The storage is full, or the task keeps as much as it may.',
}

const PRECONDITIONS = ['If-Match', 'If-None-Match', 'If-Unmodified-Since']
const etag = { ETag: header('The SHA-256 of the bytes, in quotes.') }
const bytes = { 'application/octet-stream': {} }
const key = [
  pathParameter('task_id', 'Whose result it is.'),
  pathParameter('result', '`{YYYYMMDD-HHMMSS}-{name}`, percent-encoded.'),
]

/** The OpenAPI 3.1 document of an endpoint as it is mounted: https://spec.openapis.org/oas/v3.1.0 */
export function describeEndpoint({
  basePath,
  access,
}: Pick<ResolvedHandlerOptions, 'basePath' | 'access'>): Json {
  const open = access.kind === 'none'
  return {
    openapi: '3.1.0',
    info: {
      title: 'Results of workers',
      version: '1.0.0',
      description: 'Takes the results of workers, keeps them, and gives them back.',
    },
    servers: [{ url: basePath === '' ? '/' : basePath }],
    security: open ? [] : [{ token: [] }],
    paths: {
      '/': { get: list(open), post: post(open) },
      '/{task_id}/{result}': {
        parameters: key,
        get: read(open),
        head: head(open),
        delete: remove(open),
      },
      '/{task_id}/{result}.meta.json': { parameters: key, get: record(open) },
      '/openapi.json': {
        get: {
          summary: 'This document',
          operationId: 'describeEndpoint',
          security: [],
          responses: { 200: { description: 'This document.', content: { 'application/json': {} } } },
        },
      },
    },
    components: {
      schemas: {
        Record: schemaOf(recordSchema),
        Page: schemaOf(pageSchema),
        TasksPage: schemaOf(tasksPageSchema),
        Stored: schemaOf(storedSchema),
        Error: schemaOf(errorSchema),
      },
      ...(open ? {} : { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } }),
    },
  }
}

function list(open: boolean): Json {
  return {
    summary: "A task's results, in the byte order of their keys; with `tasks`, the tasks there are",
    operationId: 'listResults',
    parameters: [
      queryParameter('task_id', 'Whose results are wanted; needed unless `tasks` is there.'),
      queryParameter(
        'tasks',
        'In place of `task_id`: lists the tasks. Takes a token for every task. Its value is ignored.',
      ),
      queryParameter('cursor', 'The `next` of the page before.'),
      queryParameter('start_after', 'A key of the task: only later ones are listed.'),
    ],
    responses: { 200: json('One page.', 'Page', 'TasksPage'), ...refuse(open, 400, 405, 500, 503) },
  }
}

function post(open: boolean): Json {
  const stored = (description: string): Json => ({
    ...json(description, 'Stored'),
    headers: { Location: header('Path of the result.') },
  })
  return {
    summary: 'Takes a result; the answer comes once it is kept',
    operationId: 'postResult',
    requestBody: {
      required: true,
      content: {
        'multipart/form-data': {
          schema: {
            type: 'object',
            required: ['file', 'key', 'task_id'],
            properties: {
              key: text(
                '`{task_id}/{YYYYMMDD-HHMMSS}-{name}`, or only a name, which the endpoint completes.',
              ),
              task_id: text('The task whose result it is.'),
              metadata: text('A JSON object.'),
              sha256: text('64 hex digits; the file is refused when it does not match.'),
              content_type: text("Media type. The file part's own counts when this is missing."),
              created_at: text("ISO 8601, UTC. The key's timestamp counts when this is missing."),
              archive: { ...text('How a directory was packed.'), enum: ['tar.gz'] },
              file: {
                description: 'The result; best sent last.',
                contentMediaType: 'application/octet-stream',
              },
            },
          },
        },
      },
    },
    responses: {
      201: stored('Kept, under a key that was free.'),
      200: stored('The key held these very bytes already.'),
      ...refuse(open, 400, 405, 408, 409, 413, 415, 422, 500, 503, 507),
    },
  }
}

function read(open: boolean): Json {
  return {
    summary: "A result's bytes",
    operationId: 'readResult',
    parameters: ['Range', 'If-Range', ...PRECONDITIONS].map(headerParameter),
    responses: {
      200: { description: 'The whole.', headers: etag, content: bytes },
      206: {
        description: 'The part asked for.',
        headers: { ...etag, 'Content-Range': header('Which part.') },
        content: bytes,
      },
      304: { description: 'The client has it.', headers: etag },
      ...refuse(open, 404, 405, 412, 416, 500, 503),
    },
  }
}

function head(open: boolean): Json {
  return {
    summary: 'What GET would answer, without the bytes',
    operationId: 'headResult',
    parameters: PRECONDITIONS.map(headerParameter),
    responses: {
      200: { description: 'It is there.', headers: etag },
      304: { description: 'The client has it.', headers: etag },
      ...withoutContent(refuse(open, 404, 412, 500, 503)),
    },
  }
}

function remove(open: boolean): Json {
  return {
    summary: 'Deletes a result',
    operationId: 'deleteResult',
    parameters: PRECONDITIONS.map(headerParameter),
    responses: { 204: { description: 'It is gone.' }, ...refuse(open, 404, 412, 500, 503) },
  }
}

function record(open: boolean): Json {
  return {
    summary: 'What is known of one result',
    operationId: 'readRecord',
    responses: { 200: json('Its record.', 'Record'), ...refuse(open, 404, 405, 500, 503) },
  }
}

function refuse(open: boolean, ...statuses: number[]): Record<string, Json> {
  const all = open ? statuses : [...statuses, 401, 403]
  return Object.fromEntries(
    all.map((status) => [
      status,
      {
        ...json(refusals[status] ?? '', 'Error'),
        ...(status === 405 ? { headers: { Allow: header('The methods there are.') } } : {}),
        ...(status === 503 ? { headers: { 'Retry-After': header('Seconds.') } } : {}),
        ...(status === 401 ? { headers: { 'WWW-Authenticate': header('How to authenticate.') } } : {}),
      },
    ]),
  )
}

function withoutContent(responses: Record<string, Json>): Record<string, Json> {
  return Object.fromEntries(
    Object.entries(responses).map(([status, { content: _, ...response }]) => [status, response]),
  )
}

function json(description: string, ...schemas: readonly [string, ...string[]]): Json {
  const [schema, ...others] = schemas.map((name) => ({ $ref: `#/components/schemas/${name}` }))
  return {
    description,
    content: {
      'application/json': { schema: others.length === 0 ? schema : { oneOf: [schema, ...others] } },
    },
  }
}

function schemaOf(schema: z.ZodType): unknown {
  const { $schema: _, ...own } = z.toJSONSchema(schema, { target: 'draft-2020-12' })
  return own
}

function text(description: string): Json {
  return { type: 'string', description }
}

function header(description: string): Json {
  return { description, schema: { type: 'string' } }
}

function pathParameter(name: string, description: string): Json {
  return { name, in: 'path', required: true, ...header(description) }
}

function queryParameter(name: string, description: string): Json {
  return { name, in: 'query', ...header(description) }
}

function headerParameter(name: string): Json {
  return { name, in: 'header', schema: { type: 'string' } }
}
