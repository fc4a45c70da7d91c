import { randomBytes } from 'node:crypto'
import {
  AbortMultipartUploadCommand,
  CreateMultipartUploadCommand,
  type CreateMultipartUploadCommandOutput,
} from '@aws-sdk/client-s3'
import type { CallOptions } from '../call-options.js'
import { ConductorError } from '../errors.js'
import { joinSignals } from '../signals.js'
import { encryptionProblem } from '../stores/s3/object-encryption.js'
import { objectInput } from '../stores/s3/object-options.js'
import type { S3Location } from '../stores/s3/s3-location.js'

/** Workers wait for the answer before they start. */
const ASK_TIMEOUT_MS = 5_000

const encrypting = new Set<string>()

/**
 * Rejects with `NOT_ENCRYPTED` when a store does not encrypt as its location is configured, so that this is known before
 * anything lies there. Nothing is asked where nothing is configured, and until it is so only once per process otherwise: an upload is
 * begun, whose answer tells, and given up. A store that cannot be asked passes; results are looked at one by one in any case.
 */
export async function assertEncrypts(at: S3Location, { signal }: CallOptions = {}): Promise<void> {
  const { sse, kmsKeyId } = at.objects ?? {}
  if (sse === undefined) return
  const name = JSON.stringify([at.endpoint ?? at.region, at.bucket, sse, kmsKeyId])
  if (encrypting.has(name)) return
  const problem = await ask(at, signal)
  if (problem === undefined) return
  if (problem === '') {
    encrypting.add(name)
    return
  }
  throw new ConductorError('NOT_ENCRYPTED', `what is stored in s3://${at.bucket} is ${problem}`)
}

/** How it falls short, or nothing; `undefined` when that could not be found out. */
async function ask(at: S3Location, signal: AbortSignal | undefined): Promise<string | undefined> {
  const limit = AbortSignal.timeout(ASK_TIMEOUT_MS)
  const abortSignal = joinSignals(limit, signal)
  const place = {
    Bucket: at.bucket,
    // Outside every task, as no task id starts with a dot.
    Key: `${at.prefix === '' ? '' : `${at.prefix}/`}.probe-${randomBytes(8).toString('hex')}`,
  }
  let answer: CreateMultipartUploadCommandOutput
  try {
    const command = new CreateMultipartUploadCommand({ ...place, ...objectInput(at) })
    answer = await at.client.send(command, { abortSignal })
  } catch {
    signal?.throwIfAborted()
    // A store that is down or closed to us must not keep work from starting.
    return undefined
  }
  const { UploadId } = answer
  await at.client.send(new AbortMultipartUploadCommand({ ...place, UploadId }), { abortSignal }).catch(() => {
    // It holds nothing, and what was asked is answered.
  })
  return encryptionProblem(at.objects ?? {}, answer) ?? ''
}
