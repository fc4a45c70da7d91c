import type { CallOptions } from '../call-options.js'
import { mintToken } from '../endpoint/token.js'
import { assertEncrypts } from '../grants/assert-encrypts.js'
import type { Granter } from '../grants/granter.js'
import { WorkerGrant } from '../grants/worker-grant.js'
import { ENV } from '../protocol/environment.js'
import type { GrantHttp } from '../protocol/grant.js'
import { WORKER_FILES, workerFolder } from '../protocol/spool-layout.js'
import type { WorkerRecord } from '../protocol/worker-record.js'
import type { SandboxFile } from '../sandbox/remote-sandbox.js'
import { mapS3Error } from '../stores/s3/map-s3-error.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import type { Access, HttpOptions, ResolvedOptions } from './options.js'
import { readPersister } from './persister-files.js'
import type { ResolvedSpawn } from './spawn-options.js'

/** A grant outlives its worker's time by this much and no more. */
const GRANT_MARGIN_MS = 600_000

/** Where commands run unless they are told otherwise. */
export const DEFAULT_CWD = '/workspace'

/** What a sandbox is given. */
export interface Provision {
  /** Variables of every process in it. */
  readonly envs: Readonly<Record<string, string>>
  /** Persister, grant and the user's own files. */
  readonly files: readonly SandboxFile[]
  /** To be served as soon as the files are there. */
  readonly grant: WorkerGrant | undefined
}

/** The file by which another conductor can go on with a worker. */
export function workerFile(record: WorkerRecord, localDir: string): SandboxFile {
  return {
    path: `${workerFolder(localDir, record.task_id)}/${WORKER_FILES.worker}`,
    data: JSON.stringify(record),
  }
}

/** The same when the worker is made; to be written after all other files. */
export function workerFiles(record: WorkerRecord, localDir: string): readonly SandboxFile[] {
  const born = `${workerFolder(localDir, record.task_id)}/${WORKER_FILES.born}`
  return [workerFile(record, localDir), { path: born, data: '' }]
}

/** Decides what a worker is handed: the persister, where results go, and by which right. */
export async function provision(
  conductor: ResolvedOptions,
  s3: S3Location | undefined,
  granter: Granter,
  spawn: ResolvedSpawn,
  options: CallOptions = {},
): Promise<Provision> {
  const { taskId } = spawn
  const { localDir } = conductor
  const expiresAt = grantEnd(Date.now() + spawn.timeoutMs)
  const access: Access = spawn.access ?? conductor.access
  if (s3 !== undefined) await assertEncrypts(s3, options)
  const folder = workerFolder(localDir, taskId)
  const bin = `${folder}/${WORKER_FILES.bin}`
  const files: SandboxFile[] = [
    // Makes the task's folder, so that it can be watched before there is a result.
    { path: `${localDir}/${taskId}/.keep`, data: '' },
    ...(await readPersister()).map(({ name, data }) => ({ path: `${bin}/${name}`, data })),
  ]
  let grant: WorkerGrant | undefined
  const envs: Record<string, string> = {
    ...spawn.env,
    [ENV.workerId]: taskId,
    [ENV.localDir]: localDir,
    NODE_PATH: spawn.env?.NODE_PATH === undefined ? bin : `${bin}:${spawn.env.NODE_PATH}`,
  }
  const publicKey = conductor.encryption?.publicKey
  if (publicKey !== undefined) envs[ENV.encryptionKey] = publicKey
  // A volume may hold an earlier worker's.
  if (publicKey !== undefined || (spawn.volume ?? conductor.volume) !== undefined) {
    files.push({ path: `${folder}/${WORKER_FILES.encryptionKey}`, data: publicKey ?? '' })
  }
  if (access === 'env') {
    const http = httpEnv(httpFor(conductor.http, taskId, expiresAt))
    Object.assign(envs, await credentialsEnv(s3, options), http)
  } else {
    grant = await issueGrant(conductor, granter, { taskId, localDir, access }, expiresAt, options)
    if (grant !== undefined) files.push(...grant.files)
  }
  if (spawn.cwd === undefined && !localDir.startsWith(`${DEFAULT_CWD}/`)) {
    files.push({ path: `${DEFAULT_CWD}/.keep`, data: '' })
  }
  for (const [path, data] of Object.entries(spawn.files ?? {})) files.push({ path, data })
  return { envs, files, grant }
}

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

async function credentialsEnv(
  s3: S3Location | undefined,
  { signal }: CallOptions,
): Promise<Record<string, string>> {
  const envs: Record<string, string> = {}
  if (s3 !== undefined) {
    let credentials: Awaited<ReturnType<S3Location['client']['config']['credentials']>>
    try {
      credentials = await s3.client.config.credentials()
    } catch (error) {
      throw mapS3Error(error, 'find AWS credentials for the worker', signal)
    }
    envs[ENV.s3Bucket] = s3.bucket
    // An empty variable would mean the default prefix; slashes alone mean none.
    envs[ENV.s3Prefix] = s3.prefix === '' ? '/' : s3.prefix
    envs[ENV.awsAccessKeyId] = credentials.accessKeyId
    envs[ENV.awsSecretAccessKey] = credentials.secretAccessKey
    envs[ENV.awsDefaultRegion] = s3.region
    if (credentials.sessionToken !== undefined) envs[ENV.awsSessionToken] = credentials.sessionToken
    if (s3.endpoint !== undefined) envs[ENV.awsEndpointUrlS3] = s3.endpoint
  }
  return envs
}

/** The endpoint as one worker reaches it. */
function httpFor(http: HttpOptions | undefined, taskId: string, expiresAt: Date): GrantHttp | undefined {
  if (http?.tokenSecret === undefined) return http
  const token = mintToken({ secret: http.tokenSecret, taskId, scope: ['write', 'read'], expiresAt })
  return { endpoint: http.endpoint, token }
}

function httpEnv(http: GrantHttp | undefined): Record<string, string> {
  if (http === undefined) return {}
  return {
    [ENV.httpEndpoint]: http.endpoint,
    ...(http.token === undefined ? {} : { [ENV.httpToken]: http.token }),
  }
}
