import type { CallOptions } from '../../call-options.js'
import type { Manifest } from '../../protocol/manifest.js'
import type { ResultStore } from '../../stores/result-store.js'
import { sandboxesOf } from '../../stores/s3/s3-intents.js'
import type { ResolvedOptions } from '../options.js'
import { type TaskPlaces, volumeStore } from '../places.js'

/** Volumes that were given to a task's workers one by one: which those were only the task's manifest and intent know. */
export async function recordedVolumes(
  taskId: string,
  { places, options }: { readonly places: TaskPlaces; readonly options: ResolvedOptions },
  manifest: Manifest | undefined,
  { signal }: CallOptions,
): Promise<readonly ResultStore[]> {
  const names = new Set(manifest?.attempts.map(({ volume }) => volume))
  // One whose end is not written down is not in the manifest.
  if (manifest?.complete !== true) {
    const open = await places.intents?.read(taskId, { signal })
    for (const { volume } of sandboxesOf(open?.intent)) names.add(volume)
  }
  names.delete(places.volume)
  return [...names].filter((name) => name !== undefined).map((name) => volumeStore(name, options))
}
