import { createHash } from 'node:crypto'
import { RequestError } from '../request-error.js'
import type { Sandbox } from '../sandbox/sandbox.js'
import { sameSecret } from './same-secret.js'

/** Finds the sandbox whose token a file URL was signed with, and checks that it has not expired. */
export function verifySignature(
  sandboxes: readonly Sandbox[],
  query: URLSearchParams,
  signature: string,
  operation: 'read' | 'write',
): Sandbox {
  const expiration = query.get('signature_expiration')
  const signed = (token: string) => {
    const parts = [query.get('path') ?? '', operation, query.get('username') ?? '', token]
    const text = (expiration === null ? parts : [...parts, expiration]).join(':')
    return `v1_${createHash('sha256').update(text).digest('base64').replace(/=+$/, '')}`
  }
  const sandbox = sandboxes.find(({ config }) => sameSecret(signature, signed(config.accessToken)))
  if (sandbox === undefined) throw new RequestError('unauthenticated', 'invalid signature')
  if (expiration !== null && !(Number(expiration) * 1000 > Date.now())) {
    throw new RequestError('unauthenticated', 'signature is already expired')
  }
  return sandbox
}
