import type { IncomingMessage, ServerResponse } from 'node:http'
import { RequestError } from '../request-error.js'

/** A request with what its address says. */
export interface RouteContext {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly query: URLSearchParams
  /** The decoded `{name}` parts of the path. */
  readonly params: Readonly<Record<string, string>>
}

/** Answers a request, or rejects with what to answer instead. */
export type Handler = (context: RouteContext) => Promise<void> | void

/** How a group of routes says no. */
export type Refuse = (res: ServerResponse, error: RequestError) => void

interface Route {
  readonly method: string
  readonly pattern: RegExp
  readonly handler: Handler
  readonly refuse: Refuse
}

/** Finds the handler for a method and path. */
export class Router {
  readonly #routes: Route[] = []

  /** Adds routes, keyed `METHOD /path/{name}`; a name matches one path segment. */
  add(routes: Readonly<Record<string, Handler>>, refuse: Refuse): void {
    for (const [key, handler] of Object.entries(routes)) {
      const [method = '', path = ''] = key.split(' ')
      const pattern = path.replace(/[.]/g, '\\.').replace(/\{(\w+)\}/g, '(?<$1>[^/]+)')
      this.#routes.push({ method, pattern: new RegExp(`^${pattern}$`), handler, refuse })
    }
  }

  find(method: string, path: string): { route: Route; params: Record<string, string> } | undefined {
    for (const route of this.#routes) {
      const match = route.method === method ? route.pattern.exec(path) : null
      if (match !== null) return { route, params: decodeAll(match.groups ?? {}) }
    }
    return undefined
  }
}

function decodeAll(groups: Readonly<Record<string, string>>): Record<string, string> {
  try {
    return Object.fromEntries(
      Object.entries(groups).map(([name, value]) => [name, decodeURIComponent(value)]),
    )
  } catch (error) {
    throw new RequestError('invalid_argument', 'the path is not valid percent-encoding', { cause: error })
  }
}
