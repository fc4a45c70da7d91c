import type { Granter } from '../grants/granter.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import type { ResolvedOptions } from './options.js'
import type { TaskLookup } from './task-lookup.js'

/** What a conductor has for all of its workers; it closes what there is to be closed. */
export interface Means {
  readonly options: ResolvedOptions
  readonly s3: S3Location | undefined
  readonly granter: Granter
  readonly lookup: TaskLookup
}
