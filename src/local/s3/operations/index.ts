import type { S3Action } from '../auth/credentials.js'
import { S3Error } from '../errors.js'
import type { S3Request } from '../request.js'
import { deleteBucketEncryption, getBucketEncryption, putBucketEncryption } from './bucket-encryption.js'
import {
  createBucket,
  deleteBucket,
  getBucketLocation,
  getBucketVersioning,
  headBucket,
  listBuckets,
} from './buckets.js'
import { completeMultipartUpload } from './complete-multipart.js'
import type { Context } from './context.js'
import { copyObject } from './copy-object.js'
import { deleteObject, deleteObjects } from './delete-objects.js'
import { getObject, getObjectTagging, headObject } from './get-object.js'
import { listObjects, listObjectsV2 } from './list-objects.js'
import {
  abortMultipartUpload,
  createMultipartUpload,
  listMultipartUploads,
  listParts,
  uploadPart,
} from './multipart.js'
import { putObject } from './put-object.js'

interface Operation {
  /** What the credential must be allowed; undefined where the operation checks each key itself. */
  readonly action: S3Action | undefined
  readonly handle: (context: Context) => Promise<void>
}

/** Every operation of the S3 API this server has, under the name the API gives it. */
export const operations = {
  AbortMultipartUpload: { action: 's3:AbortMultipartUpload', handle: abortMultipartUpload },
  CompleteMultipartUpload: { action: 's3:PutObject', handle: completeMultipartUpload },
  CopyObject: { action: 's3:PutObject', handle: copyObject },
  CreateBucket: { action: 's3:CreateBucket', handle: createBucket },
  CreateMultipartUpload: { action: 's3:PutObject', handle: createMultipartUpload },
  DeleteBucket: { action: 's3:DeleteBucket', handle: deleteBucket },
  DeleteBucketEncryption: { action: 's3:PutEncryptionConfiguration', handle: deleteBucketEncryption },
  DeleteObject: { action: 's3:DeleteObject', handle: deleteObject },
  DeleteObjects: { action: undefined, handle: deleteObjects },
  GetBucketEncryption: { action: 's3:GetEncryptionConfiguration', handle: getBucketEncryption },
  GetBucketLocation: { action: 's3:GetBucketLocation', handle: getBucketLocation },
  GetBucketVersioning: { action: 's3:GetBucketLocation', handle: getBucketVersioning },
  GetObject: { action: 's3:GetObject', handle: getObject },
  GetObjectTagging: { action: 's3:GetObject', handle: getObjectTagging },
  HeadBucket: { action: 's3:ListBucket', handle: headBucket },
  HeadObject: { action: 's3:GetObject', handle: headObject },
  ListBuckets: { action: 's3:ListAllMyBuckets', handle: listBuckets },
  ListMultipartUploads: { action: 's3:ListBucketMultipartUploads', handle: listMultipartUploads },
  ListObjects: { action: 's3:ListBucket', handle: listObjects },
  ListObjectsV2: { action: 's3:ListBucket', handle: listObjectsV2 },
  ListParts: { action: 's3:ListMultipartUploadParts', handle: listParts },
  PutBucketEncryption: { action: 's3:PutEncryptionConfiguration', handle: putBucketEncryption },
  PutObject: { action: 's3:PutObject', handle: putObject },
  UploadPart: { action: 's3:PutObject', handle: uploadPart },
} as const satisfies Record<string, Operation>

/** An operation's name in the S3 API; `PostObject` is the upload by form. */
export type S3Operation = keyof typeof operations | 'PostObject'

/** What S3 has under a query parameter and this server has not. */
const missing = new Set(
  (
    'accelerate acl analytics attributes cors encryption intelligent-tiering inventory legal-hold lifecycle logging ' +
    'metadataTable metrics notification object-lock ownershipControls policy policyStatus publicAccessBlock renameObject ' +
    'replication requestPayment restore retention select tagging torrent versionId versions versioning website'
  ).split(' '),
)

/** Finds the operation a request means. Throws `NotImplemented` or `MethodNotAllowed`. */
export function findOperation(request: S3Request): S3Operation {
  const { method, query, bucket, key } = request
  if (bucket === undefined) {
    if (method === 'GET') return 'ListBuckets'
    throw notAllowed(request)
  }
  if (key === undefined) return findBucketOperation(request)
  const inUpload = query.has('uploadId')
  if (method === 'GET' && query.has('tagging')) return 'GetObjectTagging'
  refuseMissing(request)
  switch (method) {
    case 'GET':
      return inUpload ? 'ListParts' : 'GetObject'
    case 'HEAD':
      return 'HeadObject'
    case 'PUT':
      return findPutOperation(request)
    case 'POST':
      if (query.has('uploads')) return 'CreateMultipartUpload'
      if (inUpload) return 'CompleteMultipartUpload'
      break
    case 'DELETE':
      return inUpload ? 'AbortMultipartUpload' : 'DeleteObject'
  }
  throw notAllowed(request)
}

function findPutOperation({ query, headers }: S3Request): S3Operation {
  const isCopy = headers['x-amz-copy-source'] !== undefined
  if (!query.has('partNumber') && !query.has('uploadId')) return isCopy ? 'CopyObject' : 'PutObject'
  if (isCopy) throw new S3Error('NotImplemented', { message: 'UploadPartCopy is not implemented here.' })
  return 'UploadPart'
}

function findBucketOperation(request: S3Request): S3Operation {
  const { method, query } = request
  if (method === 'GET' && query.has('location')) return 'GetBucketLocation'
  if (method === 'GET' && query.has('versioning')) return 'GetBucketVersioning'
  if (query.has('encryption')) return findEncryptionOperation(request)
  refuseMissing(request)
  switch (method) {
    case 'GET':
      if (query.has('uploads')) return 'ListMultipartUploads'
      return query.get('list-type') === '2' ? 'ListObjectsV2' : 'ListObjects'
    case 'HEAD':
      return 'HeadBucket'
    case 'PUT':
      return 'CreateBucket'
    case 'DELETE':
      return 'DeleteBucket'
    case 'POST':
      return query.has('delete') ? 'DeleteObjects' : 'PostObject'
  }
  throw notAllowed(request)
}

function findEncryptionOperation(request: S3Request): S3Operation {
  if (request.method === 'GET') return 'GetBucketEncryption'
  if (request.method === 'PUT') return 'PutBucketEncryption'
  if (request.method === 'DELETE') return 'DeleteBucketEncryption'
  throw notAllowed(request)
}

function refuseMissing({ query }: S3Request): void {
  const name = Object.keys(query.bag).find((parameter) => missing.has(parameter))
  if (name !== undefined)
    throw new S3Error('NotImplemented', { message: `?${name} is not implemented here.` })
}

function notAllowed({ method }: S3Request): S3Error {
  return new S3Error('MethodNotAllowed', { details: { Method: method } })
}
