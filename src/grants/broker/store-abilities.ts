import { createHash, randomBytes } from 'node:crypto'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import { createPresignedPost } from '@aws-sdk/s3-presigned-post'
import { XMLParser } from 'fast-xml-parser'
import { z } from 'zod'
import type { S3Location } from '../../stores/s3/s3-location.js'
import { signRequest } from './sign-request.js'

const PROBE_TIMEOUT_MS = 10_000
/** The body of every question. */
const PROBE_BODY = 'x'

/** What differs between stores that call themselves S3. */
export interface StoreAbilities {
  /** Takes uploads by form: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html */
  readonly postPolicy: boolean
  /** Knows `If-None-Match: *` on a `PUT`. */
  readonly conditionalPut: boolean
  /** Obeys headers that the signature does not cover: whoever sends a signed request can then make its object public. */
  readonly laxHeaders: boolean
}

/** Of a store that could not be asked. */
const CAPABLE: StoreAbilities = { postPolicy: true, conditionalPut: true, laxHeaders: false }

const known = new Map<string, Promise<StoreAbilities>>()
/** What a store says that has found nothing wrong but the body. */
const digestRefusals: ReadonlySet<string> = new Set([
  'XAmzContentSHA256Mismatch',
  'BadDigest',
  'InvalidDigest',
])
const errorDocument = z.object({ Error: z.object({ Code: z.string() }) })
const parser = new XMLParser()

/**
 * Asks a store what it can do, once per endpoint and bucket of this process. No question can store anything: the form is
 * smaller than its own policy demands, the other bodies are not those that were signed. A store that does not answer
 * counts as one that can do it all, and is asked again the next time.
 */
export function findAbilities(at: S3Location): Promise<StoreAbilities> {
  const name = `${at.endpoint ?? at.region} ${at.bucket}`
  const before = known.get(name)
  if (before !== undefined) return before
  const asked = ask(at)
  known.set(name, asked)
  return asked.catch(() => {
    known.delete(name)
    return CAPABLE
  })
}

async function ask(at: S3Location): Promise<StoreAbilities> {
  const [postPolicy, conditional, publicAcl] = await Promise.all([
    askForPolicy(at),
    askWithOtherBody(at, { IfNoneMatch: '*' }, {}),
    askWithOtherBody(at, {}, { 'x-amz-acl': 'public-read' }),
  ])
  return {
    postPolicy,
    conditionalPut: conditional !== 'NotImplemented',
    laxHeaders: digestRefusals.has(publicAcl),
  }
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
  return await codeOf(url, { method, headers: { ...rest, ...unsigned }, body: PROBE_BODY })
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
