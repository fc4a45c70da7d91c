import { GetObjectCommand, ListObjectsV2Command, NoSuchKey, type S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe } from 'vitest'
import { mintGrant } from '../../../src/grants/mint-grant.js'
import { openBrokerPlace } from '../grants/broker-place.js'
import { createClient } from '../s3/client.js'
import { describeEachS3, type S3Server, type S3ServerKind } from '../s3/servers.js'
import { hasSwift, startSwift, swiftSetupHint } from '../s3/swift.js'
import { type HttpReceiver, startHttpReceiver } from './http-receiver.js'

/** A result as a remote tier has it. */
export interface RemoteResult {
  readonly bytes: Buffer
  readonly contentType: string
  readonly sha256: string
  readonly metadata: unknown
}

/** Where a worker's results go in a test. */
export interface Target {
  readonly name: string
  /** Tier that a record names; undefined for the spool alone. */
  readonly tier: 's3' | 'http' | undefined
  /** What a worker of the task finds in its environment. */
  env(taskId: string): Promise<Record<string, string>>
  /** Reads a result past the program under test. */
  read(key: string): Promise<RemoteResult | undefined>
  /** Keys of a task's results, records beside them left out. */
  keys(taskId: string): Promise<string[]>
}

const PREFIX = 'out/put'

async function readS3(client: S3Client, Bucket: string, key: string): Promise<RemoteResult | undefined> {
  const Key = `${PREFIX}/${key}`
  try {
    const object = await client.send(new GetObjectCommand({ Bucket, Key }))
    const bytes = Buffer.from((await object.Body?.transformToByteArray()) ?? [])
    // Empty where a grant's policy wants the field and the metadata did not fit.
    const own = object.Metadata?.metadata || undefined
    const sidecar = own ?? (await readText(client, Bucket, `${Key}.meta.json`))
    const parsed: unknown = JSON.parse(sidecar)
    return {
      bytes,
      contentType: object.ContentType ?? '',
      sha256: object.Metadata?.sha256 ?? '',
      metadata: own === undefined ? (parsed as { metadata: unknown }).metadata : parsed,
    }
  } catch (error) {
    if (error instanceof NoSuchKey) return undefined
    throw error
  }
}

async function readText(client: S3Client, Bucket: string, Key: string): Promise<string> {
  const object = await client.send(new GetObjectCommand({ Bucket, Key }))
  return (await object.Body?.transformToString()) ?? ''
}

async function listS3(client: S3Client, Bucket: string, taskId: string): Promise<string[]> {
  const page = await client.send(new ListObjectsV2Command({ Bucket, Prefix: `${PREFIX}/${taskId}/` }))
  return (page.Contents ?? [])
    .map(({ Key = '' }) => Key.slice(PREFIX.length + 1))
    .filter((key) => !key.endsWith('.meta.json'))
}

/** Environment that reaches a bucket with its server's own credentials. */
export function s3Environment(server: S3Server, bucket: string): Record<string, string> {
  return {
    WORKER_RESULTS_S3_BUCKET: bucket,
    WORKER_RESULTS_S3_PREFIX: PREFIX,
    AWS_ENDPOINT_URL_S3: server.url,
    AWS_REGION: server.region,
    AWS_ACCESS_KEY_ID: server.credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server.credentials.secretAccessKey,
  }
}

/** A bucket and the ways to it. */
export interface S3Place extends AsyncDisposable {
  readonly server: S3Server
  readonly bucket: string
  readonly withKeys: Target
  readonly withGrant: Target
}

/** Creates a bucket on a server and gives both ways to write to it. */
export async function openS3Place(server: S3Server): Promise<S3Place> {
  const bucket = await server.createBucket()
  const client = createClient(server)
  const common = {
    tier: 's3',
    read: (key: string) => readS3(client, bucket, key),
    keys: (taskId: string) => listS3(client, bucket, taskId),
  } as const
  const location = {
    client,
    bucket,
    prefix: PREFIX,
    region: server.region,
    endpoint: server.url,
    close: () => undefined,
  }
  return {
    server,
    bucket,
    withKeys: { ...common, name: `${server.name} S3, keys`, env: async () => s3Environment(server, bucket) },
    withGrant: {
      ...common,
      name: `${server.name} S3, grant`,
      env: async (taskId) => {
        const expiresAt = new Date(Date.now() + 600_000)
        const grant = await mintGrant({ taskId, expiresAt, s3: location, maxResultBytes: 64 << 20 })
        return { WORKER_RESULTS_GRANT: JSON.stringify(grant) }
      },
    },
    [Symbol.asyncDispose]: async () => {
      client.destroy()
      await server[Symbol.asyncDispose]()
    },
  }
}

/** The HTTP tier as a target. */
export function httpTarget(receiver: HttpReceiver, token: string): Target {
  return {
    name: 'HTTP',
    tier: 'http',
    env: async () => ({ WORKER_RESULTS_ENDPOINT: receiver.url, WORKER_RESULTS_TOKEN: token }),
    read: async (key) => {
      const form = receiver.forms.get(key)
      if (form === undefined) return undefined
      return {
        bytes: form.file,
        contentType: form.contentType,
        sha256: form.fields.sha256 ?? '',
        metadata: JSON.parse(form.fields.metadata ?? 'null') as unknown,
      }
    },
    keys: async (taskId) => [...receiver.forms.keys()].filter((key) => key.startsWith(`${taskId}/`)).sort(),
  }
}

/** No remote tier at all. */
export const spoolTarget: Target = {
  name: 'spool only',
  tier: undefined,
  env: async () => ({}),
  read: async () => undefined,
  keys: async () => [],
}

function describeS3(kind: S3ServerKind, suite: (target: () => Target) => void): void {
  describe.each(['withKeys', 'withGrant'] as const)(`${kind.name} S3 %s`, (way) => {
    let place: S3Place | undefined
    beforeAll(async () => {
      place = await openS3Place(await kind.start())
    })
    afterAll(() => place?.[Symbol.asyncDispose]())
    suite(() => {
      if (place === undefined) throw new Error('the target starts before the tests')
      return place[way]
    })
  })
}

/** A store without POST policies, conditional writes or sessions: OpenStack Swift, where the machine has it. */
function describeSwift(suite: (target: () => Target) => void, way: 'withKeys' | 'withBroker'): void {
  if (!hasSwift()) {
    console.warn(
      `The persister is not held against OpenStack Swift, which is not on this machine: ${swiftSetupHint}.`,
    )
    return
  }
  describe('swift S3', () => {
    let server: S3Server | undefined
    beforeAll(async () => {
      // A broker finds out that the store takes little metadata; who has keys needs a store set up for it.
      server = await startSwift(way === 'withKeys' ? 2048 : 256)
    }, 90_000)
    afterAll(() => server?.[Symbol.asyncDispose]())
    describeWay(
      way,
      () => {
        if (server === undefined) throw new Error('the server starts before the tests')
        return server
      },
      suite,
    )
  })
}

/** One way to a server that is shared. */
function describeWay(
  way: 'withKeys' | 'withBroker',
  server: () => S3Server,
  suite: (target: () => Target) => void,
): void {
  describe(way, () => {
    let target: Target | undefined
    let close: (() => PromiseLike<void>) | undefined
    beforeAll(async () => {
      const shared = { ...server(), [Symbol.asyncDispose]: async () => undefined }
      if (way === 'withBroker') {
        const place = await openBrokerPlace(shared)
        target = place.target
        close = () => place[Symbol.asyncDispose]()
      } else {
        const place = await openS3Place(shared)
        target = place[way]
        close = () => place[Symbol.asyncDispose]()
      }
    })
    afterAll(() => close?.())
    suite(() => {
      if (target === undefined) throw new Error('the target starts before the tests')
      return target
    })
  })
}

/** Which targets a suite is run against besides HTTP and the spool. */
export interface TargetChoice {
  /** Servers that are reached with credentials, and with a policy. */
  readonly servers: readonly S3ServerKind[]
  /** Servers that are also reached through a conductor that signs each request. */
  readonly broker: readonly S3ServerKind[]
  /** Whether to go to the length of starting OpenStack Swift. */
  readonly swift: boolean
}

/** Runs a suite against targets; `target()` is there once the tests run. */
export function describeEachTarget(
  suite: (target: () => Target) => void,
  { servers, broker, swift }: TargetChoice,
): void {
  for (const kind of servers) describeS3(kind, suite)
  if (broker.length > 0) describeEachS3('S3', (server) => describeWay('withBroker', server, suite), broker)
  if (swift) {
    describeSwift(suite, 'withKeys')
    if (broker.length > 0) describeSwift(suite, 'withBroker')
  }
  describe('HTTP', () => {
    const token = 'token-of-the-test'
    let receiver: HttpReceiver | undefined
    beforeAll(async () => {
      receiver = await startHttpReceiver(token)
    })
    afterAll(() => receiver?.[Symbol.asyncDispose]())
    suite(() => {
      if (receiver === undefined) throw new Error('the target starts before the tests')
      return httpTarget(receiver, token)
    })
  })
  describe('spool only', () => suite(() => spoolTarget))
}
