import { HttpError } from './http-error.js'
import type { Principal, ResolvedHandlerOptions } from './options.js'
import { TOKEN_SCOPES, type TokenScope, verifyToken } from './token.js'

const EVERYBODY: Principal = { scopes: TOKEN_SCOPES }

/** Finds out whom a request comes from; throws 401 for nobody known. */
export async function authenticate(
  request: Request,
  { access, now }: Pick<ResolvedHandlerOptions, 'access' | 'now'>,
): Promise<Principal> {
  if (access.kind === 'none') return EVERYBODY
  if (access.kind === 'hook') {
    const { url, method, headers } = request
    // Without the body, which is still to be read as it comes.
    const principal = await access.authenticate(new Request(url, { method, headers }))
    if (principal === null) throw unauthenticated('this request is not authorised')
    return principal
  }
  const header = request.headers.get('authorization')
  if (header === null) throw unauthenticated('a bearer token is needed')
  const token = /^bearer +(\S+) *$/i.exec(header)?.[1]
  const verdict = token === undefined ? 'invalid' : verifyToken(token, access.secrets, now())
  if (verdict === 'invalid') throw unauthenticated('this token is not valid', 'invalid_token')
  if (verdict === 'expired') {
    throw new HttpError(401, 'token_expired', 'this token has expired', {
      headers: challenge('invalid_token'),
    })
  }
  return { taskId: verdict.taskId, scopes: verdict.scope }
}

/** Throws 403 unless the principal may do this at all. */
export function requireScope(principal: Principal, scope: TokenScope): void {
  if (!principal.scopes.includes(scope)) {
    throw new HttpError(403, 'forbidden', `this token does not allow to ${scope}`)
  }
}

/** Throws 403 unless the task is the principal's; says nothing of whether there is such a task. */
export function requireTask(principal: Principal, taskId: string): void {
  if (principal.taskId !== undefined && principal.taskId !== taskId) {
    throw new HttpError(403, 'forbidden', 'this token is for another task')
  }
}

/** Throws 403 unless every task is the principal's. */
export function requireEveryTask(principal: Principal): void {
  if (principal.taskId !== undefined) throw new HttpError(403, 'forbidden', 'this token is for one task only')
}

function challenge(error?: string): Record<string, string> {
  return { 'www-authenticate': `Bearer realm="results"${error === undefined ? '' : `, error="${error}"`}` }
}

function unauthenticated(message: string, error?: string): HttpError {
  return new HttpError(401, 'unauthenticated', message, { headers: challenge(error) })
}
