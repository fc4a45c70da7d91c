import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'

/** Where a server is and who signs. */
export interface S3Endpoint {
  readonly url: string
  readonly region: string
  readonly credentials: {
    readonly accessKeyId: string
    readonly secretAccessKey: string
    readonly sessionToken?: string
  }
}

/** The AWS SDK pointed at a server, configured as the conductor configures it; the caller destroys it. */
export function createClient(server: S3Endpoint, config: S3ClientConfig = {}): S3Client {
  return new S3Client({
    endpoint: server.url,
    region: server.region,
    credentials: server.credentials,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    // A test that meets an error wants to see it, not wait for it three times.
    maxAttempts: 1,
    ...config,
  })
}
