import type { S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll } from 'vitest'
import { createClient } from './client.js'
import type { S3Server } from './servers.js'

/** A bucket of a suite's own, and a client with the owner's rights. */
export interface OpenBucket {
  readonly client: S3Client
  readonly Bucket: string
}

/** Makes one before the suite's tests, and hands it over; the client is destroyed after them. */
export function useBucket(server: () => S3Server, take: (opened: OpenBucket) => void | Promise<void>): void {
  let client: S3Client | undefined
  beforeAll(async () => {
    client = createClient(server())
    await take({ client, Bucket: await server().createBucket() })
  })
  afterAll(() => client?.destroy())
}
