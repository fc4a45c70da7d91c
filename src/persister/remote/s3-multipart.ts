import { createHash } from 'node:crypto'
import { ConductorError, isConductorError } from '../../errors.js'
import type { ResultRecord } from '../../protocol/record.js'
import { isObject } from '../json.js'
import type { ResumeState } from '../spool/resume-file.js'
import type { Body } from '../spool/stage.js'
import { digestRange } from './digest-range.js'
import type { Answer } from './exchange.js'
import type { DeliveryContext } from './remote-store.js'
import { type RetryOptions, withRetry } from './retry.js'
import { encodeRfc3986 } from './s3-address.js'
import type { S3Client } from './s3-client.js'
import { s3Error, xmlText } from './s3-error.js'
import { metadataHeaders, toBase64 } from './s3-headers.js'

const PART_BYTES = 16 << 20
/** S3 takes 10,000: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
const MAX_PARTS = 9_000
const PARTS_AT_ONCE = 4
const READ_BYTES = 1 << 20
/** Cleaning up is not worth waiting for longer. */
const ABANDON_MS = 5_000

/** A body to be uploaded in parts, under a name that should be free. */
export interface MultipartUpload {
  readonly client: S3Client
  readonly objectKey: string
  readonly record: ResultRecord
  /** User metadata, without `x-amz-meta-`. */
  readonly metadata: Readonly<Record<string, string>>
  /** Sent when the upload begins. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Body
  readonly context: DeliveryContext
  readonly retry: RetryOptions
  /** Whether the very object is there already; rejects with `EXISTS` when another one is. */
  readonly isThere: () => Promise<boolean>
}

interface Part {
  readonly etag: string
  /** Base64, present when the store keeps checksums of parts. */
  readonly checksum?: string
}

interface UploadState {
  readonly v: 1
  readonly objectKey: string
  readonly bucket: string
  readonly endpoint: string | null
  readonly sha256: string
  readonly uploadId: string
  readonly partBytes: number
  readonly parts: Record<string, Part>
}

function isPart(value: unknown): value is Part {
  return (
    isObject(value) &&
    typeof value.etag === 'string' &&
    (value.checksum === undefined || typeof value.checksum === 'string')
  )
}

/** Uploads a body in parts, going on where an earlier process stopped. Repeating it is harmless. */
export async function uploadInParts(upload: MultipartUpload): Promise<void> {
  if (await withRetry(upload.isThere, upload.retry)) return upload.context.resume?.clear()
  for (let fresh = false; ; fresh = true) {
    try {
      const state = (fresh ? undefined : await loadState(upload)) ?? (await begin(upload))
      await sendParts(upload, state)
      await complete(upload, state)
      upload.context.resume?.clear()
      return
    } catch (error) {
      if (isConductorError(error) && error.code === 'NOT_FOUND') {
        // The store has forgotten the upload: completed by a process that could not say so, or cleaned away.
        upload.context.resume?.clear()
        if (await withRetry(upload.isThere, upload.retry)) return
        if (!fresh) continue
      }
      if (!isConductorError(error) || !error.retryable) await abort(upload)
      throw error
    }
  }
}

async function loadState(upload: MultipartUpload): Promise<UploadState | undefined> {
  const value = upload.context.resume?.load()
  if (!isObject(value) || !isObject(value.parts)) return undefined
  const { bucket, endpoint } = upload.client.place
  const ours =
    value.v === 1 &&
    value.objectKey === upload.objectKey &&
    value.bucket === bucket &&
    value.endpoint === (endpoint ?? null) &&
    value.sha256 === upload.body.sha256 &&
    typeof value.uploadId === 'string' &&
    value.partBytes === partBytesFor(upload.body) &&
    Object.values(value.parts).every(isPart)
  return ours ? (value as unknown as UploadState) : undefined
}

function partBytesFor({ sizeBytes }: Body): number {
  const least = Math.ceil(sizeBytes / MAX_PARTS)
  return Math.max(PART_BYTES, Math.ceil(least / READ_BYTES) * READ_BYTES)
}

async function begin(upload: MultipartUpload): Promise<UploadState> {
  const { client, objectKey, record, metadata, headers, body, context, retry } = upload
  const uploadId = await withRetry(async () => {
    const answer = await client.call({
      method: 'POST',
      objectKey,
      query: 'uploads=',
      headers: {
        'content-type': record.content_type,
        'x-amz-checksum-algorithm': 'SHA256',
        ...metadataHeaders(metadata),
        ...headers,
      },
      signal: context.signal,
    })
    if (answer.status !== 200) throw s3Error(answer, 'CreateMultipartUpload')
    const id = xmlText(answer.text, 'UploadId')
    if (id === undefined) throw new ConductorError('PROTOCOL', 'CreateMultipartUpload gave no upload id')
    return id
  }, retry)
  const { bucket, endpoint } = client.place
  const state: UploadState = {
    v: 1,
    objectKey,
    bucket,
    endpoint: endpoint ?? null,
    sha256: body.sha256,
    uploadId,
    partBytes: partBytesFor(body),
    parts: {},
  }
  await save(upload, state)
  return state
}

/** Without room for the state the upload goes on; it only cannot be resumed. */
async function save({ context }: MultipartUpload, state: UploadState): Promise<void> {
  await context.resume?.save(state).catch(() => {})
}

async function sendParts(upload: MultipartUpload, state: UploadState): Promise<void> {
  const count = Math.ceil(upload.body.sizeBytes / state.partBytes)
  const waiting = Array.from({ length: count }, (_, i) => i + 1).filter(
    (number) => state.parts[number] === undefined,
  )
  const failed = new AbortController()
  const signal =
    upload.context.signal === undefined
      ? failed.signal
      : AbortSignal.any([upload.context.signal, failed.signal])
  let saving = Promise.resolve()
  const work = async (): Promise<void> => {
    for (let number = waiting.shift(); number !== undefined; number = waiting.shift()) {
      state.parts[number] = await sendPart(upload, state, number, signal)
      saving = saving.then(() => save(upload, state))
    }
  }
  const workers = Array.from({ length: Math.min(PARTS_AT_ONCE, waiting.length) }, async () => {
    try {
      await work()
    } catch (error) {
      failed.abort(error)
      throw error
    }
  })
  const outcomes = await Promise.allSettled(workers)
  await saving
  if (outcomes.some(({ status }) => status === 'rejected')) {
    upload.context.signal?.throwIfAborted()
    throw failed.signal.reason
  }
}

async function sendPart(
  upload: MultipartUpload,
  state: UploadState,
  number: number,
  signal: AbortSignal,
): Promise<Part> {
  const { client, objectKey, body, context, retry } = upload
  const start = (number - 1) * state.partBytes
  const range = { path: body.path, start, end: Math.min(body.sizeBytes, start + state.partBytes) }
  const sha256 = await digestRange(range)
  return await withRetry(
    async () => {
      const answer = await client.call({
        method: 'PUT',
        objectKey,
        query: `partNumber=${number}&uploadId=${encodeRfc3986(state.uploadId)}`,
        headers: { 'x-amz-checksum-sha256': toBase64(sha256) },
        body: [range],
        sha256,
        signal,
        onSent: context.onSent,
      })
      if (answer.status !== 200) throw s3Error(answer, `UploadPart ${number}`)
      const { etag } = answer.headers
      if (etag === undefined) throw new ConductorError('PROTOCOL', `UploadPart ${number} gave no ETag`)
      const kept = answer.headers['x-amz-checksum-sha256']
      return typeof kept === 'string' ? { etag, checksum: kept } : { etag }
    },
    { ...retry, signal },
  )
}

function completion(parts: UploadState['parts']): Buffer {
  const numbers = Object.keys(parts)
    .map(Number)
    .sort((a, b) => a - b)
  const list = numbers.map((number) => {
    const { etag = '', checksum } = parts[number] ?? {}
    const sum = checksum === undefined ? '' : `<ChecksumSHA256>${checksum}</ChecksumSHA256>`
    const quoted = etag.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
    return `<Part><PartNumber>${number}</PartNumber><ETag>${quoted}</ETag>${sum}</Part>`
  })
  return Buffer.from(
    `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${list.join('')}</CompleteMultipartUpload>`,
  )
}

/** S3 may answer with 200 and an error inside: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html */
function completeProblem(answer: Answer): ConductorError | undefined {
  if (answer.status === 200 && !/<Error[\s>]/.test(answer.text)) return undefined
  return s3Error(answer, 'CompleteMultipartUpload')
}

async function complete(upload: MultipartUpload, state: UploadState): Promise<void> {
  const { client, objectKey, context, retry, isThere } = upload
  const body = completion(state.parts)
  const sha256 = createHash('sha256').update(body).digest('hex')
  let conditional = true
  await withRetry(async () => {
    // Some stores ignore or refuse the condition on this request, so the name is looked at as well.
    if (await isThere()) return
    const answer = await client.call({
      method: 'POST',
      objectKey,
      query: `uploadId=${encodeRfc3986(state.uploadId)}`,
      headers: { 'content-type': 'application/xml', ...(conditional ? { 'if-none-match': '*' } : {}) },
      body: [body],
      sha256,
      signal: context.signal,
    })
    const problem = completeProblem(answer)
    if (problem === undefined) return
    if (!conditional || (problem.code !== 'EXISTS' && problem.code !== 'UNSUPPORTED')) throw problem
    conditional = false
    throw new ConductorError('UNAVAILABLE', problem.message, { retryable: true, cause: problem })
  }, retry)
}

/** Frees what the store keeps of an upload that will not be finished, whatever becomes of that. */
async function abort({ client, context }: MultipartUpload): Promise<void> {
  try {
    if (context.resume !== undefined) await abandonUpload(client, context.resume)
  } catch {
    // The upload's own failure is what matters; what is kept of it in the spool lets a later flush try again.
  }
}

/** Frees what the store keeps of an unfinished upload, and forgets it; rejects when the store does not answer that it did. */
export async function abandonUpload(client: S3Client, resume: ResumeState): Promise<void> {
  const state = resume.load()
  const { bucket, endpoint } = client.place
  // An upload to somewhere else is left to whoever can reach it.
  if (!isObject(state) || state.bucket !== bucket || state.endpoint !== (endpoint ?? null)) return
  if (typeof state.objectKey !== 'string' || typeof state.uploadId !== 'string') return
  const answer = await client.call({
    method: 'DELETE',
    objectKey: state.objectKey,
    query: `uploadId=${encodeRfc3986(state.uploadId)}`,
    signal: AbortSignal.timeout(ABANDON_MS),
  })
  if (answer.status !== 404 && (answer.status < 200 || answer.status > 299)) {
    throw s3Error(answer, 'AbortMultipartUpload')
  }
  resume.clear()
}
