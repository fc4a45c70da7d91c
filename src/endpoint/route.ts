import { parseKey, RECORD_SUFFIX } from '../protocol/key.js'
import { HttpError } from './http-error.js'

/** What a path names. */
export type Route =
  | { readonly kind: 'results' }
  | { readonly kind: 'openapi' }
  | { readonly kind: 'result' | 'record'; readonly taskId: string; readonly key: string }

/** Finds out what a path names; throws 404 for everything else. Each result has one path and no other. */
export function findRoute(pathname: string, basePath: string): Route {
  if (pathname === basePath || pathname === `${basePath}/`) return { kind: 'results' }
  if (!pathname.startsWith(`${basePath}/`)) throw nothingHere()
  const rest = pathname.slice(basePath.length + 1)
  if (rest === 'openapi.json') return { kind: 'openapi' }
  const segments = rest.split('/')
  if (segments.length !== 2) throw nothingHere()
  // Only now decoded: an encoded slash is part of a name, where the rules for keys then refuse it.
  const path = segments.map(decode).join('/')
  // No result's own name ends so.
  const isRecord = path.endsWith(RECORD_SUFFIX)
  const key = isRecord ? path.slice(0, -RECORD_SUFFIX.length) : path
  const parts = parseKey(key)
  if (parts === undefined) throw nothingHere()
  return { kind: isRecord ? 'record' : 'result', taskId: parts.taskId, key }
}

/** Path of a result below the endpoint's own. */
export function pathOf(key: string): string {
  return key.split('/').map(encodeURIComponent).join('/')
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch (cause) {
    throw new HttpError(404, 'not_found', 'nothing is here: the path is not valid UTF-8', { cause })
  }
}

function nothingHere(): HttpError {
  return new HttpError(404, 'not_found', 'nothing is here: results lie at {task_id}/{YYYYMMDD-HHMMSS}-{name}')
}
