import { createHash } from 'node:crypto'
import { DeleteObjectCommand, DeleteObjectsCommand, type S3Client } from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { type ConductorError, isConductorError } from '../../errors.js'
import { mapS3Error } from './map-s3-error.js'
import type { S3Location } from './s3-location.js'

const MAX_KEYS_PER_REQUEST = 1000

/** Clients of stores that have refused to delete several objects at once. */
const oneByOne = new WeakSet<S3Client>()

/** How objects are deleted. */
export interface DeleteObjectsOptions extends CallOptions {
  /** Names the call and the place, for errors. */
  readonly doing: string
  /** How many requests at once where each object takes one of its own. @default 1, one after the other in the order given, up to the first that stays */
  readonly concurrency?: number | undefined
}

/** Objects that stay, by their keys, and why. */
export type FailedObjects = ReadonlyMap<string, ConductorError>

/**
 * Removes objects, a thousand in a request; those that are not there count as removed. Resolves with those that may still be
 * there, and rejects only with the reason of a cancellation. Stores that do not take several at once are asked for each:
 * https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
 */
export async function deleteS3Objects(
  at: S3Location,
  keys: readonly string[],
  options: DeleteObjectsOptions,
): Promise<FailedObjects> {
  const { concurrency = 1, signal } = options
  const failed = new Map<string, ConductorError>()
  const alone = keys.filter((key) => !survivesXml(key))
  const together = alone.length === 0 ? keys : keys.filter(survivesXml)
  for (let i = 0; i < together.length; i += MAX_KEYS_PER_REQUEST) {
    signal?.throwIfAborted()
    const page = together.slice(i, i + MAX_KEYS_PER_REQUEST)
    for (const [key, error] of await deletePage(at, page, { ...options, concurrency })) failed.set(key, error)
  }
  for (const [key, error] of await deleteEach(at, alone, { ...options, concurrency })) failed.set(key, error)
  return failed
}

async function deletePage(
  at: S3Location,
  keys: readonly string[],
  options: DeleteObjectsOptions & { readonly concurrency: number },
): Promise<FailedObjects> {
  if (oneByOne.has(at.client)) return deleteEach(at, keys, options)
  let said: FailedObjects
  try {
    said = await deleteTogether(at, keys, options)
  } catch (error) {
    if (!isConductorError(error)) throw error
    if (error.code !== 'UNSUPPORTED' && error.code !== 'PROTOCOL') {
      return new Map(keys.map((key) => [key, error]))
    }
    const failed = await deleteEach(at, keys, options)
    // Only now is it certain that it was the way of asking that was refused.
    if (failed.size === 0) oneByOne.add(at.client)
    return failed
  }
  // Of a busy server's thousand, some are told to come again; the client does so only for requests of their own.
  const again = [...said].filter(([, { retryable }]) => retryable).map(([key]) => key)
  const still = await deleteEach(at, again, options)
  return new Map([...said].filter(([key, { retryable }]) => !retryable || still.has(key)))
}

/** Deletes in one request, and rejects when that was not answered as such. */
async function deleteTogether(
  at: S3Location,
  keys: readonly string[],
  { doing, signal }: DeleteObjectsOptions,
): Promise<FailedObjects> {
  const command = new DeleteObjectsCommand({
    Bucket: at.bucket,
    // Not quietly: what nothing is said of may as well be there.
    Delete: { Objects: keys.map((Key) => ({ Key })) },
  })
  withContentMd5(command)
  const { Deleted = [], Errors = [] } = await at.client
    .send(command, signal === undefined ? {} : { abortSignal: signal })
    .catch((error: unknown) => {
      throw mapS3Error(error, doing, signal)
    })
  const gone = new Set(
    [...Deleted, ...Errors.filter(({ Code }) => Code === 'NoSuchKey')].map(({ Key }) => Key),
  )
  const errors = new Map(Errors.map((error) => [error.Key, error]))
  const failed = new Map<string, ConductorError>()
  for (const key of keys) {
    if (gone.has(key)) continue
    const { Code = 'InternalError', Message = '' } = errors.get(key) ?? {}
    const failure = Object.assign(new Error(Message), { name: Code })
    failed.set(key, mapS3Error(failure, doing) as ConductorError)
  }
  return failed
}

/**
 * Sends the checksum that the operation needs in the form that it was first asked for, which is the one that every store knows:
 * the SDK's own, a CRC32, is younger than many of them.
 */
function withContentMd5(command: DeleteObjectsCommand): void {
  command.middlewareStack.add(
    (next) => (args) => {
      const { headers, body } = args.request as { headers: Record<string, string>; body: string }
      const md5 = digest(body)
      if (md5 !== undefined) {
        for (const name of Object.keys(headers)) {
          if (/^x-amz-(sdk-)?checksum-/i.test(name)) delete headers[name]
        }
        headers['content-md5'] = md5
      }
      return next(args)
    },
    // After the SDK has put in its own, and before it signs.
    { step: 'build', priority: 'low', name: 'contentMd5' },
  )
}

function digest(body: string): string | undefined {
  try {
    return createHash('md5').update(body).digest('base64')
  } catch {
    // A Node in FIPS mode has no MD5; then it is left at the SDK's checksum.
    return undefined
  }
}

/**
 * Whether a server's XML parser gives a key back as it was: some trim white space, and would delete the object of another name.
 * Control characters are in no key.
 */
function survivesXml(key: string): boolean {
  return !/^\s|\s$|[\u0085\u2028\u2029\ufffe\uffff]/.test(key)
}

async function deleteEach(
  at: S3Location,
  keys: readonly string[],
  { doing, concurrency, signal }: DeleteObjectsOptions & { readonly concurrency: number },
): Promise<FailedObjects> {
  const limit = pLimit(concurrency)
  const failed = new Map<string, ConductorError>()
  const deleteOne = async (Key: string): Promise<void> => {
    const command = new DeleteObjectCommand({ Bucket: at.bucket, Key })
    try {
      signal?.throwIfAborted()
      await at.client.send(command, signal === undefined ? {} : { abortSignal: signal })
    } catch (error) {
      const failure = mapS3Error(error, doing, signal)
      if (!isConductorError(failure)) throw failure
      failed.set(Key, failure)
    }
  }
  const ends = await Promise.allSettled(
    keys.map((key) =>
      limit(async () => {
        const [first] = failed.values()
        // What comes after the one that stays is not to go before it.
        if (concurrency === 1 && first !== undefined) failed.set(key, first)
        else await deleteOne(key)
      }),
    ),
  )
  for (const end of ends) if (end.status === 'rejected') throw end.reason
  return failed
}
