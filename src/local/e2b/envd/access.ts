import type { IncomingMessage } from 'node:http'
import { HOMES, type SandboxUser } from '../jail/jail.js'
import { RequestError } from '../request-error.js'
import type { Sandbox } from '../sandbox/sandbox.js'
import type { Sandboxes } from '../sandbox/sandboxes.js'
import { sameSecret } from './same-secret.js'
import { verifySignature } from './signature.js'

/** The sandbox a request is for, awake; `unavailable` when it is not running and may not be woken. */
export async function reachSandbox(sandboxes: Sandboxes, req: IncomingMessage): Promise<Sandbox> {
  const sandbox = findSandbox(sandboxes, req)
  return wake(sandbox)
}

/** The sandbox a request is for, after its token has been checked. */
export async function enterSandbox(sandboxes: Sandboxes, req: IncomingMessage): Promise<Sandbox> {
  const sandbox = findSandbox(sandboxes, req)
  const token = req.headers['x-access-token']
  if (typeof token !== 'string' || !sameSecret(token, sandbox.config.accessToken)) {
    throw new RequestError('unauthenticated', 'unauthorized access, please provide a valid access token')
  }
  return wake(sandbox)
}

/**
 * The sandbox a file request is for. A signed URL names none: it belongs to the one whose token the signature was made with.
 */
export async function enterForFile(
  sandboxes: Sandboxes,
  req: IncomingMessage,
  query: URLSearchParams,
  operation: 'read' | 'write',
): Promise<Sandbox> {
  const signature = query.get('signature')
  if (req.headers['x-access-token'] !== undefined || signature === null) return enterSandbox(sandboxes, req)
  return wake(verifySignature(sandboxes.all(), query, signature, operation))
}

function findSandbox(sandboxes: Sandboxes, req: IncomingMessage): Sandbox {
  const id = req.headers['e2b-sandbox-id']
  const sandbox = sandboxes.all().find(({ config }) => config.id === id)
  if (sandbox === undefined) throw new RequestError('unavailable', 'The sandbox was not found')
  return sandbox
}

async function wake(sandbox: Sandbox): Promise<Sandbox> {
  if (sandbox.wakesOnTraffic) await sandbox.resume(undefined)
  sandbox.live()
  return sandbox
}

/** Who an RPC acts as: the user name of its Basic authorization. @default user */
export function userOf(req: IncomingMessage): SandboxUser {
  const [scheme, value = ''] = (req.headers.authorization ?? '').split(' ')
  if (scheme?.toLowerCase() !== 'basic') return 'user'
  return checkUser(Buffer.from(value, 'base64').toString('utf8').split(':')[0] ?? '')
}

/** Refuses names of users that do not exist. */
export function checkUser(name: string | null): SandboxUser {
  if (name === null || name === '') return 'user'
  if (name !== 'user' && name !== 'root')
    throw new RequestError('unauthenticated', `invalid username: '${name}'`)
  return name
}

/** A path as envd understands it: `~` and relative ones start at the user's home. */
export function expandPath(path: string, user: SandboxUser): string {
  const home = HOMES[user]
  if (path === '' || path === '~') return home
  if (path.startsWith('~/')) return `${home}${path.slice(1)}`
  if (path.startsWith('~'))
    throw new RequestError('invalid_argument', `'${path}': only one's own home can be named with ~`)
  return path.startsWith('/') ? path : `${home}/${path}`
}
