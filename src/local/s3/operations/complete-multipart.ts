import { createHash } from 'node:crypto'
import { BodyDigests, type ChecksumAlgorithm, digestOf } from '../body/digests.js'
import { type Checksums, checksumsIn, openBody, readSmallBody } from '../body/request-body.js'
import { S3Error } from '../errors.js'
import { fieldsOf } from '../request.js'
import { readRange } from '../store/record-file.js'
import type { ObjectRecord, PartRecord } from '../store/records.js'
import type { Upload, Uploads } from '../store/uploads.js'
import { asRecord, parseXml } from '../xml.js'
import { writeCondition } from './conditions.js'
import { addressOf, type Context, sendXml, wholeSeconds } from './context.js'
import { writeBody } from './write-body.js'

const documentLimitBytes = 8 * 2 ** 20
const minPartBytes = 5 * 2 ** 20

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html */
export async function completeMultipartUpload(context: Context): Promise<void> {
  const { request, store, identity } = context
  const address = addressOf(context)
  const bucket = store.bucket(address.bucket)
  const upload = bucket.uploads.get(request.query.get('uploadId') ?? '', address.key)
  const condition = writeCondition(request.headers)
  condition(bucket.head(address.key))
  // The checksum headers of this request are of the object, not of the XML.
  const fields = fieldsOf(request)
  const document = await readSmallBody(openBody(withoutChecksums(request), identity), documentLimitBytes)
  const parts = readParts(document.toString('utf8'), upload)
  const sizeBytes = parts.reduce((sum, part) => sum + part.sizeBytes, 0)
  const digests = new BodyDigests(wholeAlgorithms(upload, fields))
  const record = await writeBody(
    () => bucket.stage(),
    { chunks: concatenate(bucket.uploads, upload.id, parts, digests) },
    async (writer) => {
      const object: ObjectRecord = {
        key: address.key,
        sizeBytes,
        etag: multipartEtag(parts),
        lastModifiedMs: wholeSeconds(context.now()),
        attributes: upload.plan.attributes,
        checksums: objectChecksums(upload, parts, digests, fields),
        checksumType: upload.plan.checksumType,
        partSizesBytes: parts.map((part) => part.sizeBytes),
      }
      await bucket.commit(writer, object, condition)
      return object
    },
  )
  await bucket.uploads.remove(upload.id)
  sendXml(
    context,
    'CompleteMultipartUploadResult',
    [
      ['Location', `http://${request.headers.host}${request.canonicalPath}`],
      ['Bucket', address.bucket],
      ['Key', address.key],
      ['ETag', `"${record.etag}"`],
      ...Object.entries(record.checksums).map(
        ([name, value]) => [`Checksum${name.toUpperCase()}`, value] as const,
      ),
      ['ChecksumType', Object.keys(record.checksums).length > 0 ? record.checksumType : undefined],
    ],
    200,
    upload.plan.attributes.encryption,
  )
}

function withoutChecksums(request: Context['request']): Context['request'] {
  const isOther = (name: string) => !/^x-amz-checksum-/i.test(name)
  return {
    ...request,
    query: { ...request.query, bag: pick(request.query.bag, isOther) },
    headers: pick(request.headers, isOther),
  }
}

function pick<T>(record: Readonly<Record<string, T>>, wanted: (name: string) => boolean): Record<string, T> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => wanted(name)))
}

/** The parts the client lists, as they were uploaded. Throws S3's errors for order, tags, checksums and sizes. */
function readParts(text: string, upload: Upload): PartRecord[] {
  const listed: unknown = parseXml(text, 'CompleteMultipartUpload').Part
  if (!Array.isArray(listed) || listed.length > 10_000) throw new S3Error('MalformedXML')
  let previous = 0
  return listed.map((item: unknown, index) => {
    const fields = asRecord(item)
    const number = Number(fields?.PartNumber)
    if (fields === undefined || !Number.isInteger(number) || typeof fields.ETag !== 'string') {
      throw new S3Error('MalformedXML')
    }
    if (number <= previous) throw new S3Error('InvalidPartOrder')
    previous = number
    const part = upload.parts.get(number)
    if (part === undefined || fields.ETag.replaceAll('"', '').trim() !== part.etag) {
      throw invalidPart(upload, number, fields.ETag)
    }
    for (const [name, value] of Object.entries(part.checksums)) {
      const given = fields[`Checksum${name.toUpperCase()}`]
      if (given !== undefined && given !== value) throw invalidPart(upload, number, fields.ETag)
    }
    if (index < listed.length - 1 && part.sizeBytes < minPartBytes) {
      throw new S3Error('EntityTooSmall', {
        details: {
          ProposedSize: String(part.sizeBytes),
          MinSizeAllowed: String(minPartBytes),
          PartNumber: String(number),
          ETag: part.etag,
        },
      })
    }
    return part
  })
}

function invalidPart(upload: Upload, partNumber: number, etag: string): S3Error {
  return new S3Error('InvalidPart', {
    details: { UploadId: upload.id, PartNumber: String(partNumber), ETag: etag },
  })
}

async function* concatenate(
  uploads: Uploads,
  id: string,
  parts: readonly PartRecord[],
  digests: BodyDigests,
): AsyncGenerator<Buffer, void, undefined> {
  for (const part of parts) {
    const file = await uploads.openPart(id, part.partNumber)
    try {
      // Uploaded again since the list was checked.
      if (file.record.etag !== part.etag) throw new S3Error('InvalidPart')
      for await (const chunk of readRange(file.handle, 0, file.sizeBytes)) {
        digests.update(chunk)
        yield chunk
      }
    } finally {
      await file.handle.close()
    }
  }
}

/** The digest of the parts' digests and their number, as S3 makes it. */
function multipartEtag(parts: readonly PartRecord[]): string {
  const hash = createHash('md5')
  for (const part of parts) hash.update(part.etag, 'hex')
  return `${hash.digest('hex')}-${parts.length}`
}

/** What has to be computed over the whole object while the parts are put together. */
function wholeAlgorithms({ plan }: Upload, fields: Readonly<Record<string, string>>): ChecksumAlgorithm[] {
  if (plan.checksumType !== 'FULL_OBJECT') return []
  const given = [...checksumsIn(fields).keys()].map((name) => name.slice('x-amz-checksum-'.length))
  const wanted = [...given, ...(plan.checksumAlgorithm === undefined ? [] : [plan.checksumAlgorithm])]
  return [...new Set(wanted as ChecksumAlgorithm[])]
}

function objectChecksums(
  upload: Upload,
  parts: readonly PartRecord[],
  digests: BodyDigests,
  fields: Readonly<Record<string, string>>,
): Checksums {
  const checksums: Checksums = {}
  const { checksumType, checksumAlgorithm } = upload.plan
  if (checksumType === 'FULL_OBJECT') {
    for (const algorithm of wholeAlgorithms(upload, fields)) {
      checksums[algorithm] = digests.get(algorithm).toString('base64')
    }
  } else if (checksumAlgorithm !== undefined) {
    const values = parts.map((part) => part.checksums[checksumAlgorithm])
    if (values.some((value) => value === undefined)) {
      throw new S3Error('InvalidRequest', {
        message: `The upload was created using a ${checksumAlgorithm} checksum. The complete request must include the checksum for each part.`,
      })
    }
    const all = Buffer.concat(values.map((value) => Buffer.from(value ?? '', 'base64')))
    checksums[checksumAlgorithm] = `${digestOf(checksumAlgorithm, all).toString('base64')}-${parts.length}`
  }
  for (const [algorithm, value] of Object.entries(checksums)) {
    const given = fields[`x-amz-checksum-${algorithm}`]
    if (given !== undefined && given !== value && `${given}-${parts.length}` !== value)
      throw new S3Error('BadDigest')
  }
  return checksums
}
