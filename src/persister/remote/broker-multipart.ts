import { ConductorError, isConductorError } from '../../errors.js'
import { BROKER_LIMITS, type SignedRequest } from '../../protocol/broker.js'
import type { GrantS3 } from '../../protocol/grant.js'
import type { ResultRecord } from '../../protocol/record.js'
import { isObject } from '../json.js'
import type { ResumeState } from '../spool/resume-file.js'
import type { Body } from '../spool/stage.js'
import { type BrokerClient, BrokerRefused } from './broker-client.js'
import { digestRange } from './digest-range.js'
import type { Limits } from './limits.js'
import type { DeliveryContext } from './remote-store.js'
import { type RetryOptions, withRetry } from './retry.js'
import { sendSigned, signedError } from './signed-request.js'

const PART_BYTES = 16 << 20
const PARTS_AT_ONCE = 4
/** A signature that has no more time than this is not begun with. */
const MIN_LEFT_MS = 30_000
/** Cleaning up is not worth waiting for longer. */
const ABANDON_MS = 5_000

/** A body to be uploaded in parts that the conductor signs. */
export interface BrokerUpload {
  readonly client: BrokerClient
  readonly limits: Limits
  readonly s3: GrantS3
  readonly record: ResultRecord
  readonly body: Body
  readonly context: DeliveryContext
  readonly retry: RetryOptions
}

interface UploadState {
  readonly v: 'broker-1'
  readonly key: string
  readonly bucket: string
  readonly endpoint: string | null
  readonly sha256: string
  readonly uploadId: string
  readonly partBytes: number
  /** Numbers of the parts that the store took. */
  done: number[]
}

/** A part with the request that stores it. */
interface ReadyPart {
  readonly number: number
  readonly request: SignedRequest
  readonly endsAtMs: number
}

/** Uploads a body in parts, going on where an earlier process stopped, and gives its location. Repeating it is harmless. */
export async function uploadByBroker(upload: BrokerUpload): Promise<string> {
  for (let fresh = false; ; fresh = true) {
    try {
      const state = (fresh ? undefined : loadState(upload)) ?? (await begin(upload))
      if (typeof state === 'string') return settle(upload, state)
      return settle(upload, await finish(upload, state))
    } catch (error) {
      const known = isConductorError(error) ? error : undefined
      if (known?.code === 'NOT_FOUND') {
        // The store has forgotten the upload; beginning anew tells whether it was completed.
        upload.context.resume?.clear()
        if (!fresh) continue
      }
      if (known?.retryable !== true) await giveUp(upload)
      throw error
    }
  }
}

function settle({ context }: BrokerUpload, location: string): string {
  context.resume?.clear()
  return location
}

function loadState(upload: BrokerUpload): UploadState | undefined {
  const value = upload.context.resume?.load()
  if (!isObject(value) || !Array.isArray(value.done)) return undefined
  const { bucket, endpoint } = upload.s3
  const ours =
    value.v === 'broker-1' &&
    value.key === upload.record.key &&
    value.bucket === bucket &&
    value.endpoint === (endpoint ?? null) &&
    value.sha256 === upload.body.sha256 &&
    typeof value.uploadId === 'string' &&
    value.partBytes === partBytesFor(upload.body) &&
    value.done.every((number) => typeof number === 'number')
  return ours ? (value as unknown as UploadState) : undefined
}

function partBytesFor({ sizeBytes }: Body): number {
  const least = Math.ceil(sizeBytes / (BROKER_LIMITS.maxParts * 0.9))
  return Math.max(PART_BYTES, Math.ceil(least / (1 << 20)) * (1 << 20))
}

/** The state of a new upload, or the location of what is there already. */
async function begin(upload: BrokerUpload): Promise<UploadState | string> {
  const { client, record, body, s3, retry, context } = upload
  const { stored, uploadId } = await withRetry(
    () => client.ask({ op: 'create', record }, context.signal),
    retry,
  )
  if (stored !== undefined) return stored
  if (uploadId === undefined) throw new ConductorError('PROTOCOL', 'the broker gave no upload id')
  const state: UploadState = {
    v: 'broker-1',
    key: record.key,
    bucket: s3.bucket,
    endpoint: s3.endpoint ?? null,
    sha256: body.sha256,
    uploadId,
    partBytes: partBytesFor(body),
    done: [],
  }
  await save(upload, state)
  return state
}

/** Without room for the state the upload goes on; it only cannot be resumed. */
async function save({ context }: BrokerUpload, state: UploadState): Promise<void> {
  await context.resume?.save(state).catch(() => {})
}

async function finish(upload: BrokerUpload, state: UploadState): Promise<string> {
  const { client, record, retry, context } = upload
  return await withRetry(async () => {
    await sendParts(upload, state)
    try {
      const { stored } = await client.ask(
        { op: 'complete', record, upload_id: state.uploadId, part_bytes: state.partBytes },
        context.signal,
      )
      if (stored === undefined) throw new ConductorError('PROTOCOL', 'the broker did not say where it is')
      return stored
    } catch (error) {
      if (error instanceof BrokerRefused && error.missing.length > 0) {
        const missing = new Set(error.missing)
        state.done = state.done.filter((number) => !missing.has(number))
      }
      throw error
    }
  }, retry)
}

async function sendParts(upload: BrokerUpload, state: UploadState): Promise<void> {
  const count = Math.ceil(upload.body.sizeBytes / state.partBytes)
  const done = new Set(state.done)
  const waiting = Array.from({ length: count }, (_, i) => i + 1).filter((number) => !done.has(number))
  const failed = new AbortController()
  const signal =
    upload.context.signal === undefined
      ? failed.signal
      : AbortSignal.any([upload.context.signal, failed.signal])
  let saving = Promise.resolve()
  const work = async (): Promise<void> => {
    const next = (): Promise<ReadyPart> | undefined => {
      const number = waiting.shift()
      if (number === undefined) return undefined
      const ready = prepare(upload, state, number, signal)
      // Awaited when its turn comes; until then nobody hears of a failure.
      ready.catch(() => {})
      return ready
    }
    // The next part is read and asked for while the present one is on its way.
    for (let coming = next(); coming !== undefined; ) {
      const part = await coming
      coming = next()
      await sendPart(upload, state, part, signal)
      state.done.push(part.number)
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

function rangeOf({ body }: BrokerUpload, { partBytes }: UploadState, number: number): Range {
  const start = (number - 1) * partBytes
  return { path: body.path, start, end: Math.min(body.sizeBytes, start + partBytes) }
}

interface Range {
  readonly path: string
  readonly start: number
  readonly end: number
}

async function prepare(
  upload: BrokerUpload,
  state: UploadState,
  number: number,
  signal: AbortSignal,
): Promise<ReadyPart> {
  const { client, record, body, retry } = upload
  const sha256 = await digestRange(rangeOf(upload, state, number))
  return await withRetry(
    async () => {
      const { requests, expiresAt } = await client.ask(
        {
          op: 'parts',
          key: record.key,
          upload_id: state.uploadId,
          size: body.sizeBytes,
          part_bytes: state.partBytes,
          parts: [{ number, sha256 }],
        },
        signal,
      )
      const [request] = requests
      if (request === undefined) throw new ConductorError('PROTOCOL', 'the broker signed nothing')
      return { number, request, endsAtMs: Date.parse(expiresAt ?? '') }
    },
    { ...retry, signal },
  )
}

async function sendPart(
  upload: BrokerUpload,
  state: UploadState,
  part: ReadyPart,
  signal: AbortSignal,
): Promise<void> {
  const { limits, context, retry } = upload
  const { number } = part
  let { request, endsAtMs } = part
  await withRetry(
    async () => {
      if (endsAtMs - Date.now() < MIN_LEFT_MS)
        ({ request, endsAtMs } = await prepare(upload, state, number, signal))
      const answer = await sendSigned(request, [rangeOf(upload, state, number)], limits, {
        ...context,
        signal,
      })
      if (answer.status === 200) return
      const error = signedError(answer, `UploadPart ${number}`)
      // Whatever it was that the store did not like of the signature, a new one has a later date.
      if (error.code === 'UNAVAILABLE') endsAtMs = 0
      throw error
    },
    { ...retry, signal },
  )
}

/** Frees what the store keeps of an upload that will not be finished, whatever becomes of that. */
async function giveUp({ client, s3, context }: BrokerUpload): Promise<void> {
  try {
    if (context.resume !== undefined) await abandonByBroker(client, s3, context.resume)
  } catch {
    // The upload's own failure is what matters; what is kept of it in the spool lets a later flush try again.
  }
}

/** Frees what the store keeps of an unfinished upload, and forgets it; rejects when the conductor does not answer that it did. */
export async function abandonByBroker(client: BrokerClient, s3: GrantS3, resume: ResumeState): Promise<void> {
  const state = resume.load()
  // An upload to somewhere else, or by other means, is left to whoever can reach it.
  if (!isObject(state) || state.v !== 'broker-1') return
  if (state.bucket !== s3.bucket || state.endpoint !== (s3.endpoint ?? null)) return
  if (typeof state.key !== 'string' || typeof state.uploadId !== 'string') return
  await client.ask(
    { op: 'abort', key: state.key, upload_id: state.uploadId },
    AbortSignal.timeout(ABANDON_MS),
  )
  resume.clear()
}
