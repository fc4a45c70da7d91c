/** What every object that is written gets besides its body and metadata. */
export interface S3ObjectOptions {
  /**
   * Encryption by the store. `bucket` asks for none, but the bucket's default has to encrypt. What a store does not encrypt so is
   * refused with `NOT_ENCRYPTED`. @default whatever the bucket does, which nobody looks at
   */
  readonly sse?: 'AES256' | 'aws:kms' | 'bucket' | undefined
  /** Key of `aws:kms`, or the one that the bucket's default has to be. @default the account's own for S3, or any */
  readonly kmsKeyId?: string | undefined
  /** Object tags, for example for lifecycle rules or cost reports. */
  readonly tags?: Readonly<Record<string, string>> | undefined
}

/** Whatever says what its objects get. */
interface WithObjects {
  readonly objects?: S3ObjectOptions | undefined
}

/** As input of the SDK's commands that make an object. */
export interface ObjectInput {
  readonly ServerSideEncryption?: 'AES256' | 'aws:kms'
  readonly SSEKMSKeyId?: string
  readonly Tagging?: string
}

/** The options of a location as input of `PutObject` and `CreateMultipartUpload`. */
export function objectInput({ objects = {} }: WithObjects): ObjectInput {
  const { sse, kmsKeyId, tags } = objects
  const asks = sse !== undefined && sse !== 'bucket'
  return {
    ...(asks ? { ServerSideEncryption: sse } : {}),
    ...(asks && kmsKeyId !== undefined ? { SSEKMSKeyId: kmsKeyId } : {}),
    ...(tags === undefined ? {} : { Tagging: encodeTags(tags) }),
  }
}

/** The same as request headers, for whoever writes without the SDK. */
export function objectHeaders(at: WithObjects): Record<string, string> {
  const { ServerSideEncryption, SSEKMSKeyId, Tagging } = objectInput(at)
  return {
    ...(ServerSideEncryption === undefined ? {} : { 'x-amz-server-side-encryption': ServerSideEncryption }),
    ...(SSEKMSKeyId === undefined ? {} : { 'x-amz-server-side-encryption-aws-kms-key-id': SSEKMSKeyId }),
    ...(Tagging === undefined ? {} : { 'x-amz-tagging': Tagging }),
  }
}

/** The same as fields of an upload form, in which tags are XML: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html */
export function objectFields(at: WithObjects): Record<string, string> {
  const { 'x-amz-tagging': _, ...headers } = objectHeaders(at)
  const tags = at.objects?.tags
  if (tags === undefined) return headers
  const list = Object.entries(tags).map(
    ([name, value]) => `<Tag><Key>${escapeXml(name)}</Key><Value>${escapeXml(value)}</Value></Tag>`,
  )
  return { ...headers, tagging: `<Tagging><TagSet>${list.join('')}</TagSet></Tagging>` }
}

/** Spaces as `%20`: not every store takes `+` for one. */
function encodeTags(tags: Readonly<Record<string, string>>): string {
  return Object.entries(tags)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
    .join('&')
}

function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`)
}
