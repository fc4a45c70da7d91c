import type { CallOptions } from '../../call-options.js'
import { assertEncrypts } from '../../grants/assert-encrypts.js'
import type { Granter } from '../../grants/granter.js'
import type { WorkerGrant } from '../../grants/worker-grant.js'
import { ENV } from '../../protocol/environment.js'
import type { GrantHttp } from '../../protocol/grant.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import type { SandboxFile } from '../../sandbox/remote-sandbox.js'
import { mapS3Error } from '../../stores/s3/map-s3-error.js'
import type { S3Location } from '../../stores/s3/s3-location.js'
import type { Access, ResolvedOptions } from '../options.js'
import { grantEnd, httpFor, issueGrant } from '../worker/issue-grant.js'
import { readPersister } from './persister-files.js'
import type { ResolvedSpawn } from './spawn-options.js'

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

function httpEnv(http: GrantHttp | undefined): Record<string, string> {
  if (http === undefined) return {}
  return {
    [ENV.httpEndpoint]: http.endpoint,
    ...(http.token === undefined ? {} : { [ENV.httpToken]: http.token }),
  }
}
