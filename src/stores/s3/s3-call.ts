import { mapS3Error } from './map-s3-error.js'

/**
 * Makes one call of the AWS SDK, which its signal ends, and has it fail as {@link mapS3Error} says.
 *
 * @param doing names the call and the place, for example `head s3://bucket/key`
 */
export async function s3Call<T>(
  doing: string,
  call: (options: { abortSignal?: AbortSignal }) => Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  signal?.throwIfAborted()
  try {
    return await call(signal === undefined ? {} : { abortSignal: signal })
  } catch (error) {
    throw mapS3Error(error, doing, signal)
  }
}
