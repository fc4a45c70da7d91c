import { authenticate, requireScope, requireTask } from './access.js'
import type { EndpointContext } from './context.js'
import { HttpError, toHttpError } from './http-error.js'
import { describeEndpoint } from './openapi/document.js'
import { type ResolvedHandlerOptions, type ResultsHandlerOptions, resolveHandlerOptions } from './options.js'
import { postResult } from './post-result.js'
import { deleteResult, getRecord, getResult, listResults } from './read-results.js'
import { errorResponse, jsonResponse, withoutBody } from './respond.js'
import { findRoute, type Route } from './route.js'
import { TaskQuotas } from './task-quotas.js'
import type { TokenScope } from './token.js'

/** A results endpoint in web-standard form. It answers every request and never rejects. */
export type ResultsHandler = (request: Request) => Promise<Response>

/**
 * Makes the HTTP tier's server side, to be mounted in anything that speaks `Request` and `Response`. Throws `INVALID_OPTION`
 * unless it is said who may use it. The bodies of requests and answers are streamed.
 */
export function createResultsHandler(options: ResultsHandlerOptions): ResultsHandler {
  const resolved = resolveHandlerOptions(options)
  const quotas = new TaskQuotas(resolved.backend, resolved.limits)
  return async (request) => {
    const response = await answer(request, resolved, quotas)
    return request.method === 'HEAD' ? withoutBody(response) : response
  }
}

async function answer(
  request: Request,
  options: ResolvedHandlerOptions,
  quotas: TaskQuotas,
): Promise<Response> {
  try {
    const url = new URL(request.url)
    const route = findRoute(url.pathname, options.basePath)
    const action = chooseAction(request, route, options)
    if (action.scope === undefined) return await action.run(undefined)
    const principal = await authenticate(request, options)
    requireScope(principal, action.scope)
    if ('taskId' in route) requireTask(principal, route.taskId)
    return await action.run({ options, quotas, principal, url })
  } catch (error) {
    return refuse(request, error, options)
  }
}

type Action =
  | { readonly scope: TokenScope; run(context: EndpointContext): Promise<Response> }
  | { readonly scope: undefined; run(context: undefined): Promise<Response> }

/** What a method means for what a path names; throws 405 for the rest. */
function chooseAction(request: Request, route: Route, options: ResolvedHandlerOptions): Action {
  const { method } = request
  const reads = method === 'GET' || method === 'HEAD'
  switch (route.kind) {
    case 'openapi':
      if (reads) return { scope: undefined, run: async () => jsonResponse(200, describeEndpoint(options)) }
      throw notAllowed('GET, HEAD')
    case 'results':
      if (method === 'GET') return { scope: 'read', run: (context) => listResults(request, context) }
      if (method === 'POST') return { scope: 'write', run: (context) => postResult(request, context) }
      throw notAllowed('GET, POST')
    case 'record':
      if (reads) return { scope: 'read', run: (context) => getRecord(request, route.key, context) }
      throw notAllowed('GET, HEAD')
    case 'result':
      if (reads) return { scope: 'read', run: (context) => getResult(request, route.key, context) }
      if (method === 'DELETE')
        return { scope: 'delete', run: (context) => deleteResult(request, route.key, context) }
      throw notAllowed('GET, HEAD, DELETE')
  }
}

function refuse(request: Request, error: unknown, { onFault }: ResolvedHandlerOptions): Response {
  // Nobody reads this answer, and a client that went away is no fault of the endpoint.
  if (request.signal.aborted)
    return errorResponse(new HttpError(400, 'incomplete_body', 'the client went away'))
  const refusal = toHttpError(error)
  if (refusal.status >= 500 && refusal.code !== 'task_quota_exceeded') onFault(error)
  return errorResponse(refusal)
}

function notAllowed(allow: string): HttpError {
  return new HttpError(405, 'method_not_allowed', `only ${allow} work here`, { headers: { allow } })
}
