import { authorise } from '../auth/credentials.js'
import { BodyDigests } from '../body/digests.js'
import { S3Error } from '../errors.js'
import { decode, fieldsOf } from '../request.js'
import { withDefault } from '../store/default-encryption.js'
import { readRange } from '../store/record-file.js'
import { checkKey, readAttributes } from './attributes.js'
import { copyCondition, writeCondition } from './conditions.js'
import { addressOf, type Context, sendXml, wholeSeconds } from './context.js'
import { writeBody } from './write-body.js'

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html */
export async function copyObject(context: Context): Promise<void> {
  const { request, store, identity } = context
  const target = addressOf(context)
  checkKey(target.key)
  const source = readSource(request.headers['x-amz-copy-source'] ?? '')
  authorise(identity.credential, { action: 's3:GetObject', bucket: source.bucket, path: source.key })
  const bucket = store.bucket(target.bucket)
  const condition = writeCondition(request.headers)
  const replaces = readDirective(request.headers['x-amz-metadata-directive']) === 'REPLACE'
  if (!replaces && source.bucket === target.bucket && source.key === target.key) {
    throw new S3Error('InvalidRequest', {
      message:
        "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.",
    })
  }
  const asked = readAttributes(fieldsOf(request))
  const file = await store.bucket(source.bucket).open(source.key)
  if (file === undefined) throw new S3Error('NoSuchKey', { details: { Key: source.key } })
  try {
    copyCondition(request.headers, file.record)
    const digests = new BodyDigests(['md5'])
    const chunks = readRange(file.handle, 0, file.sizeBytes)
    const record = await writeBody(
      () => bucket.stage(),
      { chunks: passing(chunks, digests) },
      async (writer) => {
        // A copy is one object, however its source was uploaded: no parts, and no checksum of checksums.
        const isWhole = file.record.checksumType === 'FULL_OBJECT'
        const object = {
          key: target.key,
          sizeBytes: file.sizeBytes,
          etag: digests.get('md5').toString('hex'),
          lastModifiedMs: wholeSeconds(context.now()),
          // How the source was encrypted is of no account.
          attributes: withDefault(
            replaces ? asked : { ...file.record.attributes, encryption: asked.encryption },
            bucket.encryption,
          ),
          checksums: isWhole ? file.record.checksums : {},
          checksumType: 'FULL_OBJECT' as const,
        }
        await bucket.commit(writer, object, condition)
        return object
      },
    )
    sendXml(
      context,
      'CopyObjectResult',
      [
        ['LastModified', new Date(record.lastModifiedMs).toISOString()],
        ['ETag', `"${record.etag}"`],
      ],
      200,
      record.attributes.encryption,
    )
  } finally {
    await file.handle.close()
  }
}

async function* passing(chunks: AsyncIterable<Buffer>, digests: BodyDigests) {
  for await (const chunk of chunks) {
    digests.update(chunk)
    yield chunk
  }
}

function readSource(header: string): { bucket: string; key: string } {
  const [path = '', version] = header.split('?versionId=')
  if (version !== undefined && version !== 'null') {
    throw new S3Error('NotImplemented', { message: 'Objects have no versions here.' })
  }
  const match = /^\/?([^/]+)\/(.+)$/s.exec(decode(path))
  if (match === null) {
    throw new S3Error('InvalidArgument', {
      message: 'Copy Source must mention the source bucket and key: sourcebucket/sourcekey',
      details: { ArgumentName: 'x-amz-copy-source', ArgumentValue: header },
    })
  }
  return { bucket: match[1] ?? '', key: match[2] ?? '' }
}

function readDirective(header: string | undefined): 'COPY' | 'REPLACE' {
  if (header === undefined || header === 'COPY') return 'COPY'
  if (header === 'REPLACE') return 'REPLACE'
  throw new S3Error('InvalidArgument', {
    message: 'Unknown metadata directive.',
    details: { ArgumentName: 'x-amz-metadata-directive', ArgumentValue: header },
  })
}
