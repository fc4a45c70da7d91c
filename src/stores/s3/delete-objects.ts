import { DeleteObjectCommand, DeleteObjectsCommand, type S3Client } from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import { mapS3Error } from './map-s3-error.js'
import type { S3Location } from './s3-location.js'

/** Clients of stores that have refused to delete several objects at once. */
const oneByOne = new WeakSet<S3Client>()

/** How objects are deleted. */
export interface DeleteObjectsOptions extends CallOptions {
  /** Names the call and the place, for errors. */
  readonly doing: string
  /** How many requests at once where each object takes one of its own. @default 1, one after the other in the order given */
  readonly concurrency?: number | undefined
}

/**
 * Removes up to 1,000 objects in one request; those that are not there count as removed. Stores that do not take several at once,
 * or only with a checksum of another kind, are asked for one after the other:
 * https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
 */
export async function deleteS3Objects(
  at: S3Location,
  keys: readonly string[],
  { doing, concurrency = 1, signal }: DeleteObjectsOptions,
): Promise<void> {
  signal?.throwIfAborted()
  if (!oneByOne.has(at.client)) {
    try {
      return await deleteTogether(at, keys, doing, signal)
    } catch (error) {
      if (!isConductorError(error) || (error.code !== 'UNSUPPORTED' && error.code !== 'PROTOCOL')) throw error
    }
  }
  await deleteEach(at, keys, { doing, concurrency, signal })
  // Only now is it certain that it was the way of asking that was refused.
  oneByOne.add(at.client)
}

async function deleteTogether(
  at: S3Location,
  keys: readonly string[],
  doing: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const Delete = { Objects: keys.map((Key) => ({ Key })), Quiet: true }
  const command = new DeleteObjectsCommand({ Bucket: at.bucket, Delete })
  const { Errors = [] } = await at.client
    .send(command, signal === undefined ? {} : { abortSignal: signal })
    .catch((error: unknown) => {
      throw mapS3Error(error, doing, signal)
    })
  const failures = Errors.filter(({ Code }) => Code !== 'NoSuchKey')
  const [first] = failures
  if (first === undefined) return
  const failure = Object.assign(new Error(first.Message ?? ''), { name: first.Code ?? 'UnknownError' })
  throw mapS3Error(failure, `${doing}: ${failures.length} of ${keys.length}, such as ${first.Key},`, signal)
}

async function deleteEach(
  at: S3Location,
  keys: readonly string[],
  { doing, concurrency, signal }: DeleteObjectsOptions & { readonly concurrency: number },
): Promise<void> {
  const limit = pLimit(concurrency)
  let failure: unknown
  await Promise.all(
    keys.map((Key) =>
      limit(async () => {
        // What comes after the one that stays is not to go before it.
        if (failure !== undefined) return
        const command = new DeleteObjectCommand({ Bucket: at.bucket, Key })
        await at.client
          .send(command, signal === undefined ? {} : { abortSignal: signal })
          .catch((error: unknown) => {
            failure ??= mapS3Error(error, doing, signal)
          })
      }),
    ),
  )
  if (failure !== undefined) throw failure
}
