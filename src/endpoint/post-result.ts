import { nextTimestamp } from '../protocol/key.js'
import type { ResultRecord, StoredAt } from '../protocol/record.js'
import { requireTask } from './access.js'
import type { Commit, EndpointBackend, Relay } from './backends/endpoint-backend.js'
import type { StagedBody } from './backends/staging-folder.js'
import type { EndpointContext } from './context.js'
import { type FormFile, readForm } from './form.js'
import { HttpError } from './http-error.js'
import { jsonResponse } from './respond.js'
import { pathOf } from './route.js'
import type { EndReservation } from './task-quotas.js'
import { type Address, makeRecord, readAddress, readUploadFields } from './upload-fields.js'

/** Form overhead that a declared length may have besides file and metadata. */
const FORM_OVERHEAD_BYTES = 1 << 20
/** How often the name of a form made by hand moves on to a free second. */
const MAX_MOVES = 100

/** `POST`: takes a result, and answers only once it is kept. */
export async function postResult(request: Request, context: EndpointContext): Promise<Response> {
  const { backend, basePath, limits, now } = context.options
  const maxFileBytes = Math.min(limits.maxFileBytes, backend.maxFileBytes)
  const declaredBytes = Number(request.headers.get('content-length') ?? 0)
  if (declaredBytes > maxFileBytes + limits.maxMetadataBytes + FORM_OVERHEAD_BYTES)
    throw tooLarge(maxFileBytes)

  const stored = (): StoredAt => ({
    tier: 'http',
    location: `${context.url.origin}${basePath}`,
    at: now().toISOString(),
  })
  let body: StagedBody | undefined
  let relay: Relay | undefined
  let partType = ''
  try {
    const fields = await readForm(request, {
      maxFieldBytes: limits.maxMetadataBytes,
      stallTimeoutMs: limits.stallTimeoutMs,
      signal: request.signal,
      onFile: async ({ chunks, contentType }: FormFile, before) => {
        // What is refused anyway need not be sent first.
        const address = before.has('key') && before.has('task_id') ? checkAddress(before, context) : undefined
        partType = contentType
        const started =
          address === undefined ? undefined : startRelay(backend, before, address, partType, stored())
        relay = started
        body = await backend.staging.receive(
          chunks,
          (sizeBytes) => {
            if (sizeBytes > maxFileBytes) throw tooLarge(maxFileBytes)
          },
          started === undefined ? undefined : (path, writtenBytes) => started.advance(path, writtenBytes),
        )
      },
    })
    // Set by now: a form without a file has been refused.
    const staged = body as unknown as StagedBody
    const address = checkAddress(fields, context)
    const said = readUploadFields(fields)
    if (said.sha256 !== undefined && said.sha256 !== staged.sha256) {
      throw new HttpError(422, 'digest_mismatch', `the file that came has SHA-256 ${staged.sha256}`)
    }
    const at = stored()
    const { outcome, record } = await keep(context, { body: staged, relay }, address, (timestamp) =>
      makeRecord({ ...address, timestamp }, said, staged, partType, at),
    )
    if (outcome === 'conflict') throw new HttpError(409, 'conflict', 'this key holds another result already')
    const { key, size, sha256 } = record
    const location = { location: `${basePath}/${pathOf(key)}` }
    return jsonResponse(outcome === 'created' ? 201 : 200, { key, size, sha256 }, location)
  } finally {
    await relay?.abandon()
    if (body !== undefined) await backend.staging.discard(body)
  }
}

/** A body on its way, and what it may have been taken on by. */
interface Upload {
  readonly body: StagedBody
  readonly relay: Relay | undefined
}

/** Begins to take a body on where everything that will be said of it is known before it comes. */
function startRelay(
  backend: EndpointBackend,
  before: ReadonlyMap<string, string>,
  address: Address,
  partType: string,
  stored: StoredAt,
): Relay | undefined {
  if (address.movable || !before.has('sha256')) return undefined
  const said = readUploadFields(before)
  if (said.sha256 === undefined) return undefined
  const unknown = { path: '', sizeBytes: 0, sha256: said.sha256 }
  return backend.relay?.(makeRecord(address, said, unknown, partType, stored))
}

function checkAddress(fields: ReadonlyMap<string, string>, { options, principal }: EndpointContext): Address {
  const address = readAddress(fields, options.now())
  requireTask(principal, address.taskId)
  return address
}

/** Commits under the key asked for, or for a bare name under the first free one. */
async function keep(
  context: EndpointContext,
  upload: Upload,
  { taskId, timestamp, movable }: Address,
  recordAt: (timestamp: string) => ResultRecord,
): Promise<Commit> {
  let at = timestamp
  for (let moves = 0; ; moves++) {
    const commit = await commitWithinQuota(context, upload, taskId, recordAt(at))
    if (commit.outcome !== 'conflict' || !movable || moves === MAX_MOVES) return commit
    at = nextTimestamp(at)
  }
}

async function commitWithinQuota(
  { options: { backend }, quotas }: EndpointContext,
  { body, relay }: Upload,
  taskId: string,
  record: ResultRecord,
): Promise<Commit> {
  let end: EndReservation
  try {
    end = await quotas.reserve(taskId, body.sizeBytes)
  } catch (error) {
    // What is kept already takes no more room.
    const kept = await backend.read(record.key)
    if (kept?.sha256 === record.sha256) return { outcome: 'unchanged', record: kept }
    throw error
  }
  let stored: boolean | 'unknown' = 'unknown'
  try {
    const commit = await backend.commit(body, record, relay)
    stored = commit.outcome === 'created'
    return commit
  } finally {
    end(stored)
  }
}

function tooLarge(maxFileBytes: number): HttpError {
  return new HttpError(413, 'too_large', `a result may have at most ${maxFileBytes} bytes`)
}
