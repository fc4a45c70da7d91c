import { randomBytes } from 'node:crypto'
import { CreateBucketCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, inject, it } from 'vitest'
import { type LocalS3Options, startLocalS3 } from '../../../src/local/s3/index.js'
import { createClient } from './client.js'
import { findRgw, rgwSetupHint } from './find-rgw.js'
import type { RgwAnswer } from './global-setup.js'

/** Where S3 servers differ without one of them being broken. */
export interface S3Quirks {
  /** A checksum signed into a presigned request is held against the body. */
  readonly presignedPayloadChecksum: boolean
  /** `If-None-Match: *` and `If-Match` on CompleteMultipartUpload are obeyed rather than ignored. */
  readonly ifNoneMatchOnComplete: boolean
  /** `x-amz-*` headers that the signature does not cover are refused. */
  readonly rejectsUnsignedHeaders: boolean
  /** A signature for another region is refused. */
  readonly checksRegion: boolean
  /** A presigned URL that is valid only later is refused. */
  readonly rejectsFutureDates: boolean
  /** Bodies in the SDK's default framing (aws-chunked with a trailing checksum) are taken. */
  readonly acceptsChunkedTrailers: boolean
  /** Wrong secrets and unknown keys have their own error codes rather than `AccessDenied`. */
  readonly preciseAuthErrors: boolean
  /** CompleteMultipartUpload answers with the ETag. */
  readonly etagOnComplete: boolean
  /** `If-Match` on a PUT takes the ETag in the quotes it was given in. */
  readonly ifMatchTakesQuotes: boolean
  /** The order and the numbers of parts are checked. */
  readonly checksPartNumbers: boolean
  /** User metadata over 2 KB is refused. */
  readonly limitsMetadata: boolean
  /** An `x-amz-checksum-*` of an upload is stored and given back on request. */
  readonly storesChecksums: boolean
}

/** A running S3 server of whatever make, with credentials that may do everything. */
export interface S3Server extends AsyncDisposable {
  readonly name: 'local' | 'rgw' | 'swift'
  readonly url: string
  readonly region: string
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string }
  readonly quirks: S3Quirks
  /** Of RGW: a role that the credentials may assume, at the same URL. */
  readonly roleArn?: string
  /** Creates a bucket that nobody else uses, and returns its name. */
  createBucket(): Promise<string>
}

/** A server that a suite can be run against. */
export interface S3ServerKind {
  readonly name: S3Server['name']
  /** The local server is started for the caller; RGW is started once and shared by the whole run. */
  start(): Promise<S3Server>
}

/** Starts the project's own S3 server as a test sees it; disposing stops it. */
export async function startLocalServer(options: LocalS3Options = {}): Promise<S3Server> {
  const local = await startLocalS3({ onFault: failLoudly, ...options })
  return withBuckets({
    name: 'local',
    url: local.url,
    region: local.region,
    credentials: local.credentials,
    quirks: {
      presignedPayloadChecksum: true,
      ifNoneMatchOnComplete: true,
      rejectsUnsignedHeaders: true,
      checksRegion: true,
      rejectsFutureDates: true,
      acceptsChunkedTrailers: true,
      preciseAuthErrors: true,
      etagOnComplete: true,
      checksPartNumbers: true,
      ifMatchTakesQuotes: true,
      limitsMetadata: true,
      storesChecksums: true,
    },
    [Symbol.asyncDispose]: () => local.close(),
  })
}

/** Takes part in the run's RGW, starting it when nobody has; disposing leaves it to the others. */
export async function joinRgw(): Promise<S3Server> {
  const answer = (await (await fetch(inject('rgwBroker'))).json()) as RgwAnswer
  if ('error' in answer) throw new Error(answer.error)
  return withBuckets({
    name: 'rgw',
    ...answer.access,
    quirks: {
      presignedPayloadChecksum: false,
      ifNoneMatchOnComplete: false,
      rejectsUnsignedHeaders: false,
      checksRegion: false,
      rejectsFutureDates: false,
      acceptsChunkedTrailers: false,
      preciseAuthErrors: false,
      etagOnComplete: false,
      checksPartNumbers: false,
      ifMatchTakesQuotes: false,
      limitsMetadata: false,
      storesChecksums: false,
    },
    [Symbol.asyncDispose]: async () => undefined,
  })
}

/**
 * The servers to test against: always the local one, and RGW where the machine has it. Without it a run in CI fails,
 * and any other says so in one line. Call it while tests are collected.
 */
export function s3Servers(): S3ServerKind[] {
  const local: S3ServerKind = { name: 'local', start: () => startLocalServer() }
  const rgw: S3ServerKind = { name: 'rgw', start: joinRgw }
  if (findRgw() !== undefined) return [local, rgw]
  if (process.env.CI) {
    it('has Ceph RGW to test against', () => {
      throw new Error(`CI must test against Ceph RGW, which is not on this machine: ${rgwSetupHint}.`)
    })
  } else {
    beforeAll(async () => {
      await fetch(new URL('/missing', inject('rgwBroker')))
    })
  }
  return [local]
}

/** Runs a suite once per server of {@link s3Servers}; `server()` is there once the tests run. */
export function describeEachS3(
  name: string,
  suite: (server: () => S3Server) => void,
  servers: readonly S3ServerKind[] = s3Servers(),
): void {
  for (const kind of servers) {
    describe(`${name} [${kind.name}]`, () => {
      let server: S3Server | undefined
      beforeAll(async () => {
        server = await kind.start()
      })
      afterAll(() => server?.[Symbol.asyncDispose]())
      suite(() => {
        if (server === undefined)
          throw new Error('The S3 server starts before the tests, not while they are collected.')
        return server
      })
    })
  }
}

/** Adds what every server's buckets need. */
export function withBuckets(server: Omit<S3Server, 'createBucket'>): S3Server {
  return {
    ...server,
    createBucket: async () => {
      const client = createClient(server)
      try {
        const Bucket = `test-${randomBytes(8).toString('hex')}`
        await client.send(new CreateBucketCommand({ Bucket }))
        return Bucket
      } finally {
        client.destroy()
      }
    },
  }
}

/** A fault inside the server fails the run, even where a client would have tried again and got through. */
function failLoudly(error: unknown): void {
  setImmediate(() => {
    throw error
  })
}
