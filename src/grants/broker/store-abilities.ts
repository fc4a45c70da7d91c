import { createHash, randomBytes } from 'node:crypto'
import { HeadObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { createPresignedPost } from '@aws-sdk/s3-presigned-post'
import { XMLParser } from 'fast-xml-parser'
import { z } from 'zod'
import type { S3Location } from '../../stores/s3/s3-location.js'
import { signRequest } from './sign-request.js'

/** Workers wait for the answer before they start. */
const PROBE_TIMEOUT_MS = 3_000
/** A store that did not answer is not asked again for this long. */
const UNANSWERED_MS = 30_000
/** The body of every question. */
const PROBE_BODY = 'x'

/** How a store treats a signed `PUT`; stores that call themselves S3 differ in this. */
export interface PutAbilities {
  /** Knows `If-None-Match: *`. */
  readonly conditional: boolean
  /** Obeys headers that the signature does not cover: whoever sends a signed request can then make its object public. */
  readonly laxHeaders: boolean
}

/** What a store says that has found nothing wrong but the body. */
const digestRefusals: ReadonlySet<string> = new Set([
  'XAmzContentSHA256Mismatch',
  'BadDigest',
  'InvalidDigest',
])
const errorDocument = z.object({ Error: z.object({ Code: z.string() }) })
const parser = new XMLParser()

const policies = new Map<string, Promise<boolean>>()
const puts = new Map<string, Promise<PutAbilities>>()

/**
 * Whether a store takes uploads by form (https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html).
 * It is asked once per endpoint and bucket of this process, with a form that is smaller than its own policy demands, so that
 * nothing is stored. One that does not answer counts as one that does.
 */
export function takesPolicies(at: S3Location): Promise<boolean> {
  return askOnce(policies, at, askForPolicy, true)
}

/**
 * What a store does with a signed `PUT`. It is asked once per endpoint and bucket of this process, with bodies that are not
 * those that were signed, so that nothing is stored. One that does not answer counts as AWS.
 */
export function putAbilities(at: S3Location): Promise<PutAbilities> {
  return askOnce(puts, at, askForPut, { conditional: true, laxHeaders: false })
}

function askOnce<T>(
  known: Map<string, Promise<T>>,
  at: S3Location,
  ask: (at: S3Location) => Promise<T>,
  otherwise: T,
): Promise<T> {
  const name = `${at.endpoint ?? at.region} ${at.bucket}`
  const before = known.get(name)
  if (before !== undefined) return before
  const asked = ask(at).catch(() => {
    setTimeout(() => known.delete(name), UNANSWERED_MS).unref()
    return otherwise
  })
  known.set(name, asked)
  return asked
}

async function askForPut(at: S3Location): Promise<PutAbilities> {
  const ask = (): Promise<string[]> =>
    Promise.all([
      askWithOtherBody(at, { IfNoneMatch: '*' }, {}),
      askWithOtherBody(at, {}, { 'x-amz-acl': 'public-read' }),
    ])
  const [conditional, publicAcl = ''] = await ask().catch(async () => {
    await learnClock(at)
    return await ask()
  })
  return { conditional: conditional !== 'NotImplemented', laxHeaders: digestRefusals.has(publicAcl) }
}

/** Outside every task, as no task id starts with a dot. */
function probeKey(at: S3Location): string {
  const name = `.probe-${randomBytes(8).toString('hex')}`
  return at.prefix === '' ? name : `${at.prefix}/${name}`
}

async function askForPolicy(at: S3Location): Promise<boolean> {
  const { url, fields } = await createPresignedPost(at.client, {
    Bucket: at.bucket,
    Key: probeKey(at),
    Conditions: [['content-length-range', PROBE_BODY.length + 1, PROBE_BODY.length + 1]],
    Expires: 60,
  })
  const form = new FormData()
  for (const [name, value] of Object.entries(fields)) form.append(name, value)
  form.append('file', new Blob([PROBE_BODY]), 'probe')
  const code = await codeOf(url, { method: 'POST', body: form })
  // Whoever says what is wrong with the form has read its policy.
  return code === 'EntityTooSmall' || code === 'AccessDenied' || code === 'SignatureDoesNotMatch'
}

/** Tries to store a body that is not the one that was signed, and gives the store's code for its refusal. */
async function askWithOtherBody(
  at: S3Location,
  input: { readonly IfNoneMatch?: '*' },
  unsigned: Readonly<Record<string, string>>,
): Promise<string> {
  const other = createHash('sha256').update('y').digest()
  const command = new PutObjectCommand({
    Bucket: at.bucket,
    Key: probeKey(at),
    ContentLength: PROBE_BODY.length,
    ChecksumSHA256: other.toString('base64'),
    ...input,
  })
  const { url, method, headers } = await signRequest(at.client, command, other.toString('hex'))
  const { 'content-length': _, ...rest } = headers
  const code = await codeOf(url, { method, headers: { ...rest, ...unsigned }, body: PROBE_BODY })
  // Said of every request until the clock is put right, and nothing of what the store can do.
  if (code === 'RequestTimeTooSkewed') throw new Error('the clock is wrong by more than the store allows')
  return code
}

/** Has the client learn how wrong this process's clock is, if it is, which it does with each answer. */
async function learnClock(at: S3Location): Promise<void> {
  try {
    await at.client.send(new HeadObjectCommand({ Bucket: at.bucket, Key: probeKey(at) }), {
      abortSignal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
    })
  } catch {
    // Nothing is there; that was to be expected.
  }
}

/** The store's own code for its refusal; rejects when it does not answer, or is not well. */
async function codeOf(url: string, init: RequestInit): Promise<string> {
  const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS)
  const answer = await fetch(url, { ...init, signal, redirect: 'error' })
  const text = (await answer.text()).slice(0, 10_000)
  if (answer.status >= 500 && answer.status !== 501) throw new Error(`the store answered ${answer.status}`)
  if (answer.status === 501) return 'NotImplemented'
  const document = errorDocument.safeParse(parser.parse(text))
  const code = document.success ? document.data.Error.Code : `HTTP ${answer.status}`
  // A wrong setting says nothing of the store; who uses it hears of it.
  if (code === 'NoSuchBucket') throw new Error('there is no such bucket')
  return code
}
