import type { ConductorError } from '../../errors.js'
import { s3ObjectKey, s3SidecarKey } from '../../protocol/s3-layout.js'
import { deleteS3Objects } from './delete-objects.js'
import type { S3Location } from './s3-location.js'

const CONCURRENT_DELETIONS = 16

/**
 * Removes results, two requests for every thousand. All objects of a thousand go before any of their sidecars, since a sidecar
 * without an object is passed over, and one whose object stays keeps describing it.
 */
export async function deleteS3Results(
  at: S3Location,
  keys: readonly string[],
  doing: string,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, ConductorError>> {
  const options = { doing, concurrency: CONCURRENT_DELETIONS, signal }
  const objectKeys = new Map(keys.map((key) => [key, s3ObjectKey(at.prefix, key)]))
  const failed = new Map<string, ConductorError>()
  const deleteOf = async (some: readonly string[], locate: (objectKey: string) => string): Promise<void> => {
    const byPlace = new Map(some.map((key) => [locate(objectKeys.get(key) as string), key]))
    const stayed = await deleteS3Objects(at, [...byPlace.keys()], options)
    for (const [place, error] of stayed) failed.set(byPlace.get(place) as string, error)
  }
  await deleteOf(keys, (objectKey) => objectKey)
  await deleteOf(
    // Also those of objects that were not there: an earlier call may have got no further than that.
    keys.filter((key) => !failed.has(key)),
    s3SidecarKey,
  )
  return failed
}
