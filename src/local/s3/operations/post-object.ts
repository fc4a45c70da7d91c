import type { AuthSettings } from '../auth/authenticate.js'
import { authorise } from '../auth/credentials.js'
import { authenticateForm, checkPolicy, type FormFields, type SizeRange } from '../auth/post-policy.js'
import { BodyDigests } from '../body/digests.js'
import { type Form, openForm } from '../body/form.js'
import { algorithmOf, type Checksums, checksumsIn } from '../body/request-body.js'
import { S3Error } from '../errors.js'
import { encodePath } from '../request.js'
import { withDefault } from '../store/default-encryption.js'
import type { ObjectRecord } from '../store/records.js'
import { asRecord, parseXml } from '../xml.js'
import { checkKey, readAttributes } from './attributes.js'
import { bucketOf, type Context, sendEmpty, sendXml, wholeSeconds } from './context.js'
import { checkSize, writeBody } from './write-body.js'

// biome-ignore lint/suspicious/noTemplateCurlyInString: S3's own variable, as it stands in forms
const filenameVariable = '${filename}'

/** A form signs itself: its identity is found in its fields. */
export type FormContext = Omit<Context, 'identity'>

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html */
export async function postObject(context: FormContext, settings: AuthSettings): Promise<void> {
  const { request } = context
  // A policy cannot ask for it, and dropping it in silence would overwrite what the client wanted to keep.
  if (request.headers['if-none-match'] !== undefined || request.headers['if-match'] !== undefined) {
    throw new S3Error('NotImplemented', { details: { Header: 'If-None-Match' } })
  }
  if (request.headers['content-length'] === undefined) throw new S3Error('MissingContentLength')
  const form = await openForm(request)
  try {
    const bucket = bucketOf(context)
    const key = (form.fields.key ?? '').replaceAll(filenameVariable, () => form.filename)
    const fields: FormFields = { ...form.fields, key }
    if (key === '') {
      throw new S3Error('InvalidArgument', {
        message:
          "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.",
        details: { ArgumentName: 'key' },
      })
    }
    const { credential } = await authenticateForm(fields, settings)
    const range = checkPolicy(fields, bucket, settings.now())
    authorise(credential, { action: 's3:PutObject', bucket, path: key })
    checkKey(key)
    const record = await store(context, form, fields, { bucket, key, range })
    answer(context, fields, bucket, record)
  } finally {
    form.close()
  }
}

async function store(
  context: FormContext,
  form: Form,
  fields: FormFields,
  target: { bucket: string; key: string; range: SizeRange },
): Promise<ObjectRecord> {
  const bucket = context.store.bucket(target.bucket)
  const given = readAttributes({
    ...fields,
    'x-amz-acl': fields.acl ?? 'private',
    'x-amz-tagging': tagsOf(fields.tagging),
  })
  const attributes = withDefault(given, bucket.encryption)
  const expected = checksumsIn(fields)
  const digests = new BodyDigests(['md5', ...[...expected.keys()].map(algorithmOf)])
  let sizeBytes = 0
  async function* chunks() {
    for await (const chunk of form.file) {
      digests.update(chunk)
      sizeBytes += chunk.length
      checkSize(sizeBytes)
      if (sizeBytes > target.range.max) {
        throw new S3Error('EntityTooLarge', {
          details: { ProposedSize: String(sizeBytes), MaxSizeAllowed: String(target.range.max) },
        })
      }
      yield chunk
    }
  }
  return writeBody(
    () => bucket.stage(),
    { chunks: chunks() },
    async (writer) => {
      await form.ended
      if (sizeBytes < target.range.min) {
        throw new S3Error('EntityTooSmall', {
          details: { ProposedSize: String(sizeBytes), MinSizeAllowed: String(target.range.min) },
        })
      }
      const checksums: Checksums = {}
      for (const [name, value] of expected) {
        const algorithm = algorithmOf(name)
        if (digests.get(algorithm).toString('base64') !== value) throw new S3Error('BadDigest')
        checksums[algorithm] = value
      }
      const record: ObjectRecord = {
        key: target.key,
        sizeBytes,
        etag: digests.get('md5').toString('hex'),
        lastModifiedMs: wholeSeconds(context.now()),
        attributes,
        checksums,
        checksumType: 'FULL_OBJECT',
      }
      await bucket.commit(writer, record, () => undefined)
      return record
    },
  )
}

/** A form has its tags as XML, a request as a query string. */
function tagsOf(text: string | undefined): string {
  if (text === undefined) return ''
  const set = asRecord(parseXml(text, 'Tagging').TagSet)?.Tag
  const tags = (Array.isArray(set) ? set : []).map((tag) => {
    const { Key, Value } = asRecord(tag) ?? {}
    if (typeof Key !== 'string' || typeof Value !== 'string') throw new S3Error('MalformedXML')
    return [Key, Value] as [string, string]
  })
  return new URLSearchParams(tags).toString()
}

function answer(context: FormContext, fields: FormFields, bucket: string, record: ObjectRecord): void {
  const etag = `"${record.etag}"`
  const location = `http://${context.request.headers.host}/${encodePath(`${bucket}/${record.key}`)}`
  const headers = { etag, location, ...record.attributes.encryption }
  const redirect = fields.success_action_redirect ?? fields.redirect
  if (redirect !== undefined && URL.canParse(redirect)) {
    const url = new URL(redirect)
    for (const [name, value] of Object.entries({ bucket, key: record.key, etag }))
      url.searchParams.append(name, value)
    sendEmpty(context, 303, { ...headers, location: url.href })
  } else if (fields.success_action_status === '201') {
    sendXml(
      context,
      'PostResponse',
      [
        ['Location', location],
        ['Bucket', bucket],
        ['Key', record.key],
        ['ETag', etag],
      ],
      201,
      headers,
    )
  } else {
    sendEmpty(context, fields.success_action_status === '200' ? 200 : 204, headers)
  }
}
