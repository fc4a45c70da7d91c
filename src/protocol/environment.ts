/** Names of the environment variables that both sides read; those of the AWS tools keep their meaning. */
export const ENV = {
  workerId: 'WORKER_ID',
  s3Bucket: 'WORKER_RESULTS_S3_BUCKET',
  s3Prefix: 'WORKER_RESULTS_S3_PREFIX',
  awsAccessKeyId: 'AWS_ACCESS_KEY_ID',
  awsSecretAccessKey: 'AWS_SECRET_ACCESS_KEY',
  awsSessionToken: 'AWS_SESSION_TOKEN',
  awsRegion: 'AWS_REGION',
  awsDefaultRegion: 'AWS_DEFAULT_REGION',
  awsEndpointUrlS3: 'AWS_ENDPOINT_URL_S3',
  awsEndpointUrl: 'AWS_ENDPOINT_URL',
  httpEndpoint: 'WORKER_RESULTS_ENDPOINT',
  httpToken: 'WORKER_RESULTS_TOKEN',
  localDir: 'WORKER_RESULTS_LOCAL_DIR',
  grant: 'WORKER_RESULTS_GRANT',
  grantFile: 'WORKER_RESULTS_GRANT_FILE',
  /** Public: results are encrypted for it. */
  encryptionKey: 'WORKER_RESULTS_ENCRYPTION_KEY',
  /** Private, PEM; for conductors only, as is the file. */
  decryptionKey: 'WORKER_RESULTS_DECRYPTION_KEY',
  decryptionKeyFile: 'WORKER_RESULTS_DECRYPTION_KEY_FILE',
} as const

const DEFAULT_S3_PREFIX = 'results'
const DEFAULT_LOCAL_DIR = '/workspace/.results'
const DEFAULT_REGION = 'us-east-1'

/** AWS credentials as the environment gives them. */
export interface EnvironmentCredentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

/** The environment read, defaults applied. */
export interface ResultsEnvironment {
  readonly workerId: string | undefined
  readonly localDir: string
  /** Present when a bucket is named; `credentials` may still be missing. */
  readonly s3:
    | {
        readonly bucket: string
        readonly prefix: string
        readonly region: string
        /** Custom endpoint; undefined means AWS itself. */
        readonly endpoint: string | undefined
        readonly credentials: EnvironmentCredentials | undefined
      }
    | undefined
  readonly http: { readonly endpoint: string; readonly token: string | undefined } | undefined
  /** The grant as JSON text. */
  readonly grant: string | undefined
  readonly grantFile: string | undefined
  readonly encryptionKey: string | undefined
  readonly decryptionKey: string | undefined
  readonly decryptionKeyFile: string | undefined
}

/** Reads the results settings from an environment; a variable set to nothing counts as not set. */
export function readEnvironment(env: Readonly<Record<string, string | undefined>>): ResultsEnvironment {
  const get = (name: string): string | undefined => (env[name] === '' ? undefined : env[name])
  const bucket = get(ENV.s3Bucket)
  const accessKeyId = get(ENV.awsAccessKeyId)
  const secretAccessKey = get(ENV.awsSecretAccessKey)
  const endpoint = get(ENV.httpEndpoint)
  return {
    workerId: get(ENV.workerId),
    localDir: get(ENV.localDir) ?? DEFAULT_LOCAL_DIR,
    s3:
      bucket === undefined
        ? undefined
        : {
            bucket,
            prefix: normalizePrefix(get(ENV.s3Prefix) ?? DEFAULT_S3_PREFIX),
            region: get(ENV.awsRegion) ?? get(ENV.awsDefaultRegion) ?? DEFAULT_REGION,
            endpoint: get(ENV.awsEndpointUrlS3) ?? get(ENV.awsEndpointUrl),
            credentials:
              accessKeyId === undefined || secretAccessKey === undefined
                ? undefined
                : { accessKeyId, secretAccessKey, sessionToken: get(ENV.awsSessionToken) },
          },
    http: endpoint === undefined ? undefined : { endpoint, token: get(ENV.httpToken) },
    grant: get(ENV.grant),
    grantFile: get(ENV.grantFile),
    encryptionKey: get(ENV.encryptionKey),
    decryptionKey: get(ENV.decryptionKey),
    decryptionKeyFile: get(ENV.decryptionKeyFile),
  }
}

/** Drops slashes at both ends, so that `results`, `/results` and `results/` name the same place. */
export function normalizePrefix(prefix: string): string {
  return prefix.replace(/^\/+|\/+$/g, '')
}
