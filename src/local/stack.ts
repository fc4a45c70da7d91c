import { ENV } from '../protocol/environment.js'
import { type LocalE2b, type LocalE2bOptions, startLocalE2b } from './e2b/index.js'
import { type LocalS3, startLocalS3 } from './s3/index.js'

/** How to start a local stack. */
export interface LocalStackOptions {
  /** How sandboxes are kept apart. @default the local E2B's own */
  readonly isolation?: LocalE2bOptions['isolation']
  /** Name of the bucket that is made. @default 'stu-results' */
  readonly bucket?: string | undefined
}

/** A running local E2B and S3. Whoever started it closes it. */
export interface LocalStack extends AsyncDisposable {
  readonly e2b: LocalE2b
  readonly s3: LocalS3
  /** Made empty at the start. */
  readonly bucket: string
  /** All that a `Conductor` reads from its environment; holds keys of this stack only. */
  readonly env: Readonly<Record<string, string>>
  /** Ends every sandbox and both servers, and removes their files. Repeated calls do nothing more. */
  close(): Promise<void>
}

/** Starts everything a conductor needs on this machine's loopback address. When one server does not start, the other is closed. */
export async function startLocalStack(options: LocalStackOptions = {}): Promise<LocalStack> {
  const { bucket = 'stu-results', isolation } = options
  const [e2b, s3] = await Promise.allSettled([
    startLocalE2b(isolation === undefined ? {} : { isolation }),
    startLocalS3({ buckets: [bucket] }),
  ])
  if (e2b.status === 'rejected' || s3.status === 'rejected') {
    const started = [e2b, s3].flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []))
    const ends = await Promise.allSettled(started.map((server) => server.close()))
    const reasons = [e2b, s3, ...ends].flatMap((end) =>
      end.status === 'rejected' ? [end.reason as unknown] : [],
    )
    throw reasons.length === 1 ? reasons[0] : new AggregateError(reasons, 'the local stack did not start')
  }
  const servers = [e2b.value, s3.value] as const
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing ??= closeAll(servers)
    return closing
  }
  return {
    e2b: e2b.value,
    s3: s3.value,
    bucket,
    env: { ...e2b.value.env, ...s3.value.env, [ENV.s3Bucket]: bucket },
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** Closes each, also after another failed to close; then throws what failed first. */
async function closeAll(servers: readonly { close(): Promise<void> }[]): Promise<void> {
  const ends = await Promise.allSettled(servers.map((server) => server.close()))
  for (const end of ends) if (end.status === 'rejected') throw end.reason
}
