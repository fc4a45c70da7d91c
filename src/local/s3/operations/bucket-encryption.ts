import { openBody, readSmallBody } from '../body/request-body.js'
import { S3Error } from '../errors.js'
import { type DefaultEncryption, SSE_S3 } from '../store/default-encryption.js'
import { asRecord, parseXml } from '../xml.js'
import { bucketOf, type Context, sendEmpty, sendXml } from './context.js'

const documentLimitBytes = 64 * 2 ** 10

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketEncryption.html */
export async function getBucketEncryption(context: Context): Promise<void> {
  const { algorithm, kmsKeyId, bucketKey } = context.store.bucket(bucketOf(context)).encryption
  sendXml(context, 'ServerSideEncryptionConfiguration', [
    [
      'Rule',
      [
        [
          'ApplyServerSideEncryptionByDefault',
          [
            ['SSEAlgorithm', algorithm],
            ['KMSMasterKeyID', kmsKeyId],
          ],
        ],
        ['BucketKeyEnabled', bucketKey],
      ],
    ],
  ])
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketEncryption.html */
export async function putBucketEncryption(context: Context): Promise<void> {
  const bucket = context.store.bucket(bucketOf(context))
  const body = await readSmallBody(openBody(context.request, context.identity), documentLimitBytes)
  await bucket.setEncryption(readConfiguration(body.toString('utf8')))
  sendEmpty(context, 200)
}

/** Back to what every bucket has. @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteBucketEncryption.html */
export async function deleteBucketEncryption(context: Context): Promise<void> {
  await context.store.bucket(bucketOf(context)).setEncryption(SSE_S3)
  sendEmpty(context, 204)
}

function readConfiguration(text: string): DefaultEncryption {
  // One rule is all there can be; a list of them is none.
  const rule = asRecord(parseXml(text, 'ServerSideEncryptionConfiguration').Rule)
  const byDefault = asRecord(rule?.ApplyServerSideEncryptionByDefault)
  const { SSEAlgorithm: algorithm, KMSMasterKeyID: kmsKeyId } = byDefault ?? {}
  if (algorithm !== 'AES256' && algorithm !== 'aws:kms' && algorithm !== 'aws:kms:dsse')
    throw new S3Error('MalformedXML')
  if (algorithm === 'AES256' && kmsKeyId !== undefined) {
    throw new S3Error('InvalidArgument', {
      message:
        'a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse',
      details: { ArgumentName: 'ApplyServerSideEncryptionByDefault' },
    })
  }
  return {
    algorithm,
    ...(typeof kmsKeyId === 'string' ? { kmsKeyId } : {}),
    bucketKey: rule?.BucketKeyEnabled === 'true',
  }
}
