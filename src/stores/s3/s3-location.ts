import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import { normalizePrefix } from '../../protocol/environment.js'
import type { S3ObjectOptions } from './object-options.js'

/** An AWS key pair, with its session token where it has one. */
export interface S3Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
  /** When a provider should be asked again. */
  readonly expiration?: Date | undefined
}

/** Where results lie in S3, and how to get there. */
export interface S3Options extends S3ObjectOptions {
  readonly bucket: string
  /** @default 'results' */
  readonly prefix?: string | undefined
  /** @default 'us-east-1' */
  readonly region?: string | undefined
  /** Base URL of a store that is not AWS's own; buckets are then addressed by path. */
  readonly endpoint?: string | undefined
  /** Static credentials or a provider; without them the AWS SDK looks in its usual places. */
  readonly credentials?: S3Credentials | (() => Promise<S3Credentials>) | undefined
  /** A client of the caller's instead of one made here; the caller closes it. */
  readonly client?: S3Client | undefined
}

/** A bucket and prefix with the client that reaches it. */
export interface S3Location {
  readonly client: S3Client
  /** Whether the client was made here, so that it does nothing but what is known here. */
  readonly ownsClient?: boolean | undefined
  readonly bucket: string
  /** Without slashes at its ends; may be empty. */
  readonly prefix: string
  readonly region: string
  readonly endpoint: string | undefined
  /** What every new object gets. */
  readonly objects?: S3ObjectOptions | undefined
  /** Frees the connections of a client made here; a caller's own is left alone. */
  close(): void
}

/** Opens a location. Nothing is sent yet. */
export function openS3Location(options: S3Options): S3Location {
  const region = options.region ?? 'us-east-1'
  const client = options.client ?? makeClient(options, region)
  return {
    client,
    ownsClient: options.client === undefined,
    bucket: options.bucket,
    prefix: normalizePrefix(options.prefix ?? 'results'),
    region,
    endpoint: options.endpoint,
    objects: { sse: options.sse, kmsKeyId: options.kmsKeyId, tags: options.tags },
    close: () => {
      if (options.client === undefined) client.destroy()
    },
  }
}

const say = (): void => {}
const SILENT = { debug: say, info: say, warn: say, error: say }

function makeClient(options: S3Options, region: string): S3Client {
  const client = new S3Client({
    region,
    // The SDK's default would put a CRC32 of nothing into every presigned upload URL, which several stores refuse.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    maxAttempts: 5,
    // Without one it tells the console of every stream that it cannot send twice; the error itself is thrown.
    logger: SILENT,
    // Without bounds the SDK waits for ever on a peer that accepts a connection and says nothing.
    requestHandler: {
      connectionTimeout: 10_000,
      socketTimeout: 60_000,
      httpsAgent: { maxSockets: 100 },
      httpAgent: { maxSockets: 100 },
    },
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint, forcePathStyle: true }),
    ...(options.credentials === undefined
      ? {}
      : { credentials: options.credentials as NonNullable<S3ClientConfig['credentials']> }),
  })
  // It copies each answer for a log that nobody keeps: a tenth of what listing costs.
  client.middlewareStack.remove('loggerMiddleware')
  return client
}
