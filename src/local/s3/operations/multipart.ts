import { checksumAlgorithms } from '../body/digests.js'
import { openBody } from '../body/request-body.js'
import { S3Error } from '../errors.js'
import { fieldsOf } from '../request.js'
import { withDefault } from '../store/default-encryption.js'
import type { UploadPlan } from '../store/uploads.js'
import { checkKey, readAttributes } from './attributes.js'
import { addressOf, bucketOf, type Context, sendEmpty, sendXml, wholeSeconds } from './context.js'
import { keyEncoder, readLimit } from './list-objects.js'
import { checksumHeaders } from './put-object.js'
import { checkSize, writeBody } from './write-body.js'

const maxPartNumber = 10_000

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html */
export async function createMultipartUpload(context: Context): Promise<void> {
  const { bucket, key } = addressOf(context)
  checkKey(key)
  const fields = fieldsOf(context.request)
  const { uploads, encryption } = context.store.bucket(bucket)
  const attributes = withDefault(readAttributes(fields), encryption)
  const checksum = readChecksumPlan(fields)
  const uploadId = await uploads.create({
    key,
    initiatedMs: wholeSeconds(context.now()),
    attributes,
    ...checksum,
  })
  const headers = checksum.checksumAlgorithm && {
    'x-amz-checksum-algorithm': checksum.checksumAlgorithm.toUpperCase(),
    'x-amz-checksum-type': checksum.checksumType,
  }
  sendXml(
    context,
    'InitiateMultipartUploadResult',
    [
      ['Bucket', bucket],
      ['Key', key],
      ['UploadId', uploadId],
    ],
    200,
    { ...attributes.encryption, ...headers },
  )
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html */
export async function uploadPart(context: Context): Promise<void> {
  const { request, store, now } = context
  const { bucket, key } = addressOf(context)
  const { uploads } = store.bucket(bucket)
  const { id, plan } = uploads.get(request.query.get('uploadId') ?? '', key)
  const partNumber = readPartNumber(request.query.get('partNumber') ?? '')
  const body = openBody(request, context.identity)
  checkSize(body.sizeBytes)
  const part = await writeBody(
    () => uploads.stage(),
    body,
    async (writer) => {
      const record = {
        partNumber,
        sizeBytes: body.sizeBytes,
        checksums: body.verify(),
        etag: body.digests.get('md5').toString('hex'),
        lastModifiedMs: wholeSeconds(now()),
      }
      await uploads.commitPart(id, writer, record)
      return record
    },
  )
  sendEmpty(context, 200, {
    etag: `"${part.etag}"`,
    ...plan.attributes.encryption,
    ...checksumHeaders(part.checksums, 'FULL_OBJECT'),
  })
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html */
export async function abortMultipartUpload(context: Context): Promise<void> {
  const { bucket, key } = addressOf(context)
  const { uploads } = context.store.bucket(bucket)
  const { id } = uploads.get(context.request.query.get('uploadId') ?? '', key)
  await uploads.remove(id)
  sendEmpty(context, 204)
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListParts.html */
export async function listParts(context: Context): Promise<void> {
  const { request } = context
  const { bucket, key } = addressOf(context)
  const { id, plan, parts } = context.store
    .bucket(bucket)
    .uploads.get(request.query.get('uploadId') ?? '', key)
  const marker = Number(request.query.get('part-number-marker') ?? 0)
  const limit = readLimit(request, 'max-parts')
  const after = [...parts.values()]
    .filter((part) => part.partNumber > marker)
    .sort((a, b) => a.partNumber - b.partNumber)
  const page = after.slice(0, limit)
  sendXml(context, 'ListPartsResult', [
    ['Bucket', bucket],
    ['Key', keyEncoder(request)(key)],
    ['UploadId', id],
    ['PartNumberMarker', marker],
    ['NextPartNumberMarker', page.at(-1)?.partNumber ?? 0],
    ['MaxParts', limit],
    ['IsTruncated', page.length < after.length],
    ['ChecksumAlgorithm', plan.checksumAlgorithm?.toUpperCase()],
    ...page.map(
      (part) =>
        [
          'Part',
          [
            ['PartNumber', part.partNumber],
            ['LastModified', new Date(part.lastModifiedMs).toISOString()],
            ['ETag', `"${part.etag}"`],
            ['Size', part.sizeBytes],
            ...Object.entries(part.checksums).map(
              ([name, value]) => [`Checksum${name.toUpperCase()}`, value] as const,
            ),
          ],
        ] as const,
    ),
  ])
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html */
export async function listMultipartUploads(context: Context): Promise<void> {
  const { request } = context
  const name = bucketOf(context)
  const prefix = request.query.get('prefix') ?? ''
  const limit = readLimit(request, 'max-uploads')
  const encode = keyEncoder(request)
  if (request.query.get('delimiter')) {
    throw new S3Error('NotImplemented', {
      message: 'Listing uploads with a delimiter is not implemented here.',
    })
  }
  const all = context.store
    .bucket(name)
    .uploads.list()
    .filter(({ plan }) => plan.key.startsWith(prefix))
  const keyMarker = request.query.get('key-marker') ?? ''
  const idMarker = request.query.get('upload-id-marker') ?? ''
  const from = all.findIndex(({ id, plan }) => plan.key === keyMarker && id === idMarker) + 1
  const after = all.slice(from).filter(({ plan }) => from > 0 || keyMarker === '' || plan.key > keyMarker)
  const page = after.slice(0, limit)
  const last = page.length < after.length ? page.at(-1) : undefined
  sendXml(context, 'ListMultipartUploadsResult', [
    ['Bucket', name],
    ['KeyMarker', encode(keyMarker)],
    ['UploadIdMarker', idMarker],
    ['NextKeyMarker', last === undefined ? undefined : encode(last.plan.key)],
    ['NextUploadIdMarker', last?.id],
    ['Prefix', encode(prefix)],
    ['EncodingType', request.query.get('encoding-type')],
    ['MaxUploads', limit],
    ['IsTruncated', last !== undefined],
    ...page.map(
      ({ id, plan }) =>
        [
          'Upload',
          [
            ['Key', encode(plan.key)],
            ['UploadId', id],
            ['StorageClass', plan.attributes.headers['x-amz-storage-class'] ?? 'STANDARD'],
            ['Initiated', new Date(plan.initiatedMs).toISOString()],
          ],
        ] as const,
    ),
  ])
}

function readPartNumber(text: string): number {
  const partNumber = Number(text)
  if (!/^\d+$/.test(text) || partNumber < 1 || partNumber > maxPartNumber) {
    throw new S3Error('InvalidArgument', {
      message: `Part number must be an integer between 1 and ${maxPartNumber}, inclusive`,
      details: { ArgumentName: 'partNumber', ArgumentValue: text },
    })
  }
  return partNumber
}

function readChecksumPlan(
  fields: Readonly<Record<string, string>>,
): Pick<UploadPlan, 'checksumAlgorithm' | 'checksumType'> {
  const named = fields['x-amz-checksum-algorithm']?.toLowerCase()
  const checksumType =
    fields['x-amz-checksum-type']?.toUpperCase() === 'FULL_OBJECT' ? 'FULL_OBJECT' : 'COMPOSITE'
  if (named === undefined) return { checksumType }
  const checksumAlgorithm = checksumAlgorithms.find((known) => known === named)
  if (checksumAlgorithm === undefined) {
    throw new S3Error('NotImplemented', {
      message: `The checksum algorithm ${named} is not implemented here; use one of ${checksumAlgorithms.join(', ')}.`,
    })
  }
  if (checksumType === 'FULL_OBJECT' && checksumAlgorithm.startsWith('sha')) {
    throw new S3Error('InvalidRequest', {
      message: `The FULL_OBJECT checksum type cannot be used with the ${checksumAlgorithm} checksum algorithm.`,
    })
  }
  return { checksumAlgorithm, checksumType }
}
