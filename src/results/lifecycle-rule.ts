import { z } from 'zod'
import { checkOptions } from '../check-options.js'
import { normalizePrefix } from '../protocol/environment.js'
import { s3ManifestKey } from '../protocol/s3-layout.js'

/** What a lifecycle rule is for. */
export interface LifecycleOptions {
  /** Whole days after which results go; S3 counts from the midnight after each was stored. */
  readonly olderThanDays: number
  /** @default 'results' */
  readonly prefix?: string | undefined
}

/** A bucket's lifecycle configuration, as `put-bucket-lifecycle-configuration` takes it. */
export interface LifecycleConfiguration {
  readonly Rules: readonly LifecycleRule[]
}

/** One rule of it: https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html */
export interface LifecycleRule {
  readonly ID: string
  readonly Status: 'Enabled'
  readonly Filter: { readonly Prefix: string }
  readonly Expiration: { readonly Days: number }
  readonly NoncurrentVersionExpiration?: { readonly NoncurrentDays: number }
  readonly AbortIncompleteMultipartUpload?: { readonly DaysAfterInitiation: number }
}

const lifecycleSchema = z.strictObject({
  olderThanDays: z.number().int().min(1).max(36_500),
  prefix: z.string().optional(),
})

/** Uploads that nobody finished within this time are freed. */
const UNFINISHED_DAYS = 7

/**
 * Rules by which S3 itself deletes results after some days, sealed or not. Manifests go a day before the results that they list:
 * a list without its manifest asks S3, whereas a manifest without its results would show what is gone. Applying it replaces every
 * other rule of the bucket, so merge it into those that there are.
 */
export function lifecycleRule(options: LifecycleOptions): LifecycleConfiguration {
  const { olderThanDays, prefix } = checkOptions('lifecycleRule', lifecycleSchema, options)
  const at = normalizePrefix(prefix ?? 'results')
  const manifests = s3ManifestKey(at, '').replace(/\.json$/, '')
  return {
    Rules: [
      {
        ID: `stu-conductor-manifests-${olderThanDays}d`,
        Status: 'Enabled',
        Filter: { Prefix: manifests },
        Expiration: { Days: Math.max(1, olderThanDays - 1) },
      },
      {
        ID: `stu-conductor-results-${olderThanDays}d`,
        Status: 'Enabled',
        Filter: { Prefix: at === '' ? '' : `${at}/` },
        Expiration: { Days: olderThanDays },
        NoncurrentVersionExpiration: { NoncurrentDays: UNFINISHED_DAYS },
        AbortIncompleteMultipartUpload: { DaysAfterInitiation: UNFINISHED_DAYS },
      },
    ],
  }
}
