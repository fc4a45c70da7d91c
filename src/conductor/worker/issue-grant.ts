import type { CallOptions } from '../../call-options.js'
import { mintToken } from '../../endpoint/token.js'
import type { Granter } from '../../grants/granter.js'
import { WorkerGrant } from '../../grants/worker-grant.js'
import type { GrantHttp } from '../../protocol/grant.js'
import type { Access, HttpOptions, ResolvedOptions } from '../options.js'

/** A grant outlives its worker's time by this much and no more. */
const GRANT_MARGIN_MS = 600_000

/** When the grant of a worker ends whose own time is up at the given moment. */
export function grantEnd(deadlineMs: number): Date {
  return new Date(deadlineMs + GRANT_MARGIN_MS)
}

/** A grant for a worker; undefined when it needs none, or there is nothing to be granted. */
export async function issueGrant(
  conductor: ResolvedOptions,
  granter: Granter,
  worker: {
    readonly taskId: string
    readonly localDir: string
    readonly access: Access
    /** Whether another process made it. */
    readonly inherited?: boolean | undefined
  },
  expiresAt: Date,
  options: CallOptions = {},
): Promise<WorkerGrant | undefined> {
  const { taskId, localDir, access, inherited } = worker
  if (access === 'env' || (conductor.s3 === undefined && conductor.http === undefined)) return undefined
  const http = (until: Date): GrantHttp | undefined => httpFor(conductor.http, taskId, until)
  return WorkerGrant.issue(granter, { taskId, localDir, access, http, inherited }, expiresAt, options)
}

/** The endpoint as one worker reaches it. */
export function httpFor(
  http: HttpOptions | undefined,
  taskId: string,
  expiresAt: Date,
): GrantHttp | undefined {
  if (http?.tokenSecret === undefined) return http
  const token = mintToken({ secret: http.tokenSecret, taskId, scope: ['write', 'read'], expiresAt })
  return { endpoint: http.endpoint, token }
}
