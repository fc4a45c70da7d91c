import { E2bVolumeFiles } from '../sandbox/e2b-volume.js'
import type { ManifestStore } from '../stores/manifest-store.js'
import type { ResultStore } from '../stores/result-store.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import { S3Manifests } from '../stores/s3/s3-manifests.js'
import { S3Store } from '../stores/s3/s3-store.js'
import { SpoolStore } from '../stores/spool-store.js'
import type { ResolvedOptions } from './options.js'

/** Where one task's results lie beyond its sandbox. */
export interface TaskPlaces {
  readonly localDir: string
  /** The preferred one first. */
  readonly stores: readonly ResultStore[]
  readonly s3: S3Store | undefined
  readonly manifests: ManifestStore | undefined
  /** Name of the volume that is the task's spool, if one is. */
  readonly volume: string | undefined
}

/** The places that the conductor's settings give a task. */
export function placesOf(
  taskId: string,
  options: ResolvedOptions,
  s3: S3Location | undefined,
  volumeTemplate: string | undefined,
): TaskPlaces {
  const store = s3 === undefined ? undefined : new S3Store(s3)
  const volume = volumeTemplate?.replaceAll('{taskId}', taskId)
  const stores: ResultStore[] = store === undefined ? [] : [store]
  if (volume !== undefined) {
    stores.push(new SpoolStore(`volume ${volume}`, 'volume', new E2bVolumeFiles(volume, options.e2b)))
  }
  return {
    localDir: options.localDir,
    stores,
    s3: store,
    manifests: s3 === undefined ? undefined : new S3Manifests(s3),
    volume,
  }
}
