import type { Handler } from '../http/router.js'
import { RequestError } from '../request-error.js'

const ROUTES = {
  'POST /sandboxes/{id}/snapshots': 'snapshots',
  'GET /snapshots': 'snapshots',
  'DELETE /templates/{id}': 'snapshots and templates',
  'POST /v3/templates': 'template builds',
  'POST /sandboxes/{id}/fork': 'forks',
  'PUT /sandboxes/{id}/network': 'network rules',
  'GET /secrets': 'secrets',
  'POST /secrets': 'secrets',
}

/** Answers what E2B has and this server does not by saying so. */
export function unsupportedApi(): Record<string, Handler> {
  return Object.fromEntries(
    Object.entries(ROUTES).map(([route, what]) => [
      route,
      async () => {
        throw new RequestError('unimplemented', `${what}: not supported by the local stand-in`)
      },
    ]),
  )
}
