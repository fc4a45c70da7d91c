import { randomBytes } from 'node:crypto'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { startRgw } from '../support/s3/rgw.js'
import { Service } from './service.js'

const BUCKET = 'faults'

/** The S3 server of a round, which the adversary may kill. */
export interface S3Backend extends AsyncDisposable {
  readonly kind: 'local' | 'rgw'
  readonly bucket: string
  readonly region: string
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string }
  /** Where it listens at the moment. */
  url(): string
  /** Of its process; 0 where there are several. */
  pid(): number
  kill(): Promise<void>
  restart(): Promise<void>
  /** Stops it from running without killing it, and lets it go on; undefined where that cannot be done. */
  readonly freeze: ((frozen: boolean) => void) | undefined
}

/** A client of the AWS SDK for the laboratory's own eyes. */
export function plainClient(backend: S3Backend): S3Client {
  return new S3Client({
    endpoint: backend.url(),
    region: backend.region,
    credentials: backend.credentials,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
  })
}

/** Starts the project's own S3 server over a folder. */
export async function startLocalBackend(
  program: string,
  folder: string,
  env: NodeJS.ProcessEnv,
): Promise<S3Backend> {
  const credentials = {
    accessKeyId: `LAB${randomBytes(8).toString('hex').toUpperCase()}`,
    secretAccessKey: randomBytes(30).toString('base64url'),
  }
  const service = new Service(program, [folder, BUCKET], { ...env, LAB_SECRET: JSON.stringify(credentials) })
  let { url } = await service.start<{ url: string }>()
  return {
    kind: 'local',
    bucket: BUCKET,
    region: 'us-east-1',
    credentials,
    url: () => url,
    pid: () => service.pid,
    kill: () => service.kill(),
    restart: async () => {
      ;({ url } = await service.start<{ url: string }>())
    },
    freeze: (frozen) => service.signal(frozen ? 'SIGSTOP' : 'SIGCONT'),
    [Symbol.asyncDispose]: () => service.kill(),
  }
}

/** Starts a Ceph cluster with an RGW; the adversary kills the RGW, and the cluster stays. */
export async function startRgwBackend(): Promise<S3Backend> {
  const rgw = await startRgw()
  const { url, region, credentials } = rgw.access
  const backend: S3Backend = {
    kind: 'rgw',
    bucket: BUCKET,
    region,
    credentials,
    url: () => url,
    pid: () => 0,
    kill: () => rgw.killGateway(),
    restart: () => rgw.startGateway(),
    freeze: undefined,
    [Symbol.asyncDispose]: () => rgw.close(),
  }
  const client = plainClient(backend)
  try {
    await client.send(new CreateBucketCommand({ Bucket: BUCKET }))
  } catch (error) {
    await rgw.close()
    throw error
  } finally {
    client.destroy()
  }
  return backend
}
