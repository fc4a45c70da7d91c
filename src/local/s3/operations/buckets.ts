import { bucketOf, type Context, sendEmpty, sendXml } from './context.js'

const owner = [
  'Owner',
  [
    ['ID', 'local'],
    ['DisplayName', 'local'],
  ],
] as const

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListBuckets.html */
export async function listBuckets(context: Context): Promise<void> {
  const buckets = context.store.list().map(
    ({ name, createdMs }) =>
      [
        'Bucket',
        [
          ['Name', name],
          ['CreationDate', new Date(createdMs).toISOString()],
        ],
      ] as const,
  )
  sendXml(context, 'ListAllMyBucketsResult', [owner, ['Buckets', buckets]])
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html */
export async function createBucket(context: Context): Promise<void> {
  const name = bucketOf(context)
  await context.store.create(name, context.now())
  sendEmpty(context, 200, { location: `/${name}` })
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html */
export async function headBucket(context: Context): Promise<void> {
  context.store.bucket(bucketOf(context))
  sendEmpty(context, 200, { 'x-amz-bucket-region': context.region })
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteBucket.html */
export async function deleteBucket(context: Context): Promise<void> {
  await context.store.remove(bucketOf(context))
  sendEmpty(context, 204)
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html */
export async function getBucketLocation(context: Context): Promise<void> {
  context.store.bucket(bucketOf(context))
  // S3 names its first region by saying nothing.
  const region = context.region === 'us-east-1' ? '' : context.region
  sendXml(context, 'LocationConstraint', region)
}

/** Buckets here have no versions. @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html */
export async function getBucketVersioning(context: Context): Promise<void> {
  context.store.bucket(bucketOf(context))
  sendXml(context, 'VersioningConfiguration', [])
}
