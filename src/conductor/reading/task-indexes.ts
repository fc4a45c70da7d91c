import type { ManyTasksContext } from '../../results/many-tasks.js'
import { HttpTasks } from '../../stores/http/http-tasks.js'
import type { S3Location } from '../../stores/s3/s3-location.js'
import { S3Manifests } from '../../stores/s3/s3-manifests.js'
import { S3Tasks } from '../../stores/s3/s3-tasks.js'
import type { ResolvedOptions } from '../options.js'
import { httpAccess } from '../places.js'

/** Where the conductor's settings let tasks be listed. */
export function taskIndexes(
  options: ResolvedOptions,
  s3: S3Location | undefined,
): Pick<ManyTasksContext, 'indexes' | 'manifests'> {
  return {
    indexes: [
      ...(s3 === undefined ? [] : [new S3Tasks(s3)]),
      ...(options.http === undefined ? [] : [new HttpTasks(httpAccess(options.http))]),
    ],
    manifests: s3 === undefined ? undefined : new S3Manifests(s3),
  }
}
