import { readFileSync } from 'node:fs'
import { systemCode } from '../../files/system-code.js'
import type { ResultsEnvironment } from '../../protocol/environment.js'
import type {
  Grant,
  GrantBroker,
  GrantHttp,
  GrantPolicy,
  GrantS3,
  GrantSession,
} from '../../protocol/grant.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { describeError } from '../fs-error.js'
import { isObject } from '../json.js'

function readPolicy(value: unknown): GrantPolicy | undefined {
  if (!isObject(value) || typeof value.url !== 'string' || !isObject(value.fields)) return undefined
  const { url, fields, max_bytes } = value
  if (typeof max_bytes !== 'number' || !(max_bytes > 0)) return undefined
  if (!Object.values(fields).every((field) => typeof field === 'string')) return undefined
  return { url, fields: fields as Record<string, string>, max_bytes }
}

function readBroker(value: unknown): GrantBroker | undefined {
  if (!isObject(value) || value.v !== 1) return undefined
  const { url, token, max_bytes, put_bytes } = value
  if (typeof max_bytes !== 'number' || typeof put_bytes !== 'number') return undefined
  return {
    v: 1,
    max_bytes,
    put_bytes,
    url: typeof url === 'string' ? url : undefined,
    token: typeof token === 'string' ? token : undefined,
  }
}

function readSession(value: unknown): GrantSession | undefined {
  if (!isObject(value)) return undefined
  const { access_key_id, secret_access_key, session_token, expires_at } = value
  if (typeof access_key_id !== 'string' || typeof secret_access_key !== 'string') return undefined
  if (typeof session_token !== 'string' || typeof expires_at !== 'string') return undefined
  return { access_key_id, secret_access_key, session_token, expires_at }
}

function readHeaders(value: unknown): Record<string, string> | undefined {
  if (!isObject(value) || !Object.values(value).every((header) => typeof header === 'string'))
    return undefined
  return value as Record<string, string>
}

function readS3(value: unknown): GrantS3 | undefined {
  if (!isObject(value)) return undefined
  const { bucket, prefix, region, endpoint, policy, broker, session, headers } = value
  if (typeof bucket !== 'string' || typeof prefix !== 'string' || typeof region !== 'string') return undefined
  return {
    bucket,
    prefix,
    region,
    endpoint: typeof endpoint === 'string' ? endpoint : undefined,
    policy: readPolicy(policy),
    broker: readBroker(broker),
    session: readSession(session),
    headers: readHeaders(headers),
  }
}

function readHttp(value: unknown): GrantHttp | undefined {
  if (!isObject(value) || typeof value.endpoint !== 'string') return undefined
  return { endpoint: value.endpoint, token: typeof value.token === 'string' ? value.token : undefined }
}

/** A grant out of its JSON text, or `undefined` for anything that is not one. Parts that are malformed are left out. */
export function readGrantText(text: string): Grant | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (!isObject(value) || value.v !== 1) return undefined
  const { task_id, expires_at } = value
  if (typeof task_id !== 'string' || typeof expires_at !== 'string') return undefined
  if (Number.isNaN(Date.parse(expires_at))) return undefined
  return { v: 1, task_id, expires_at, s3: readS3(value.s3), http: readHttp(value.http) }
}

/** Where a task's grant is looked for when the environment does not say. */
export function defaultGrantPath(localDir: string, taskId: string): string {
  return `${workerFolder(localDir, taskId)}/${WORKER_FILES.grant}`
}

/**
 * The grant of a task that is good for longest, of those in `WORKER_RESULTS_GRANT`, `WORKER_RESULTS_GRANT_FILE` and the
 * task's own folder: a conductor that extends a worker's time writes a fresh file, while the environment stays as it was.
 */
export function loadGrant(
  env: ResultsEnvironment,
  taskId: string,
  warn: (line: string) => void,
): Grant | undefined {
  const found: Grant[] = []
  const consider = (where: string, text: string): void => {
    const grant = readGrantText(text)
    if (grant === undefined) warn(`the grant in ${where} is malformed and not used`)
    else if (grant.task_id === taskId) found.push(grant)
  }
  if (env.grant !== undefined) consider('WORKER_RESULTS_GRANT', env.grant)
  for (const path of new Set([env.grantFile, defaultGrantPath(env.localDir, taskId)])) {
    if (path === undefined) continue
    try {
      consider(path, readFileSync(path, 'utf8'))
    } catch (error) {
      if (systemCode(error) === 'ENOENT' && path !== env.grantFile) continue
      warn(`cannot read the grant ${path}: ${describeError(error)}`)
    }
  }
  return found.sort((a, b) => Date.parse(b.expires_at) - Date.parse(a.expires_at))[0]
}
