import { randomBytes } from 'node:crypto'
import { type ClientRequest, request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { ConductorError } from '../../errors.js'
import type { ResultRecord } from '../../protocol/record.js'
import { type HttpRefusal, mapHttpFailure } from './map-http-error.js'

/** What the endpoint says of an upload is short; what is longer is cut off. */
const MAX_ANSWER_BYTES = 64 * 1024

/** A result on its way to an endpoint. */
export interface Upload {
  readonly url: URL
  readonly token: string | undefined
  readonly record: ResultRecord
  /** Exactly `record.size` bytes. */
  readonly body: Readable
  /** Longest time in which nothing moves, in milliseconds. */
  readonly stallTimeoutMs: number
  readonly signal: AbortSignal | undefined
  readonly doing: string
}

/** What an endpoint answered; the body's text where it is short. */
export interface UploadAnswer extends Pick<HttpRefusal, 'status'> {
  readonly text: string
}

/**
 * Posts a result as the multipart form that workers send. Over node:http, since `fetch` sends a stream without its length, which
 * endpoints of others may refuse. Redirects are not followed.
 */
export async function upload(options: Upload): Promise<UploadAnswer> {
  const { url, token, record, body, stallTimeoutMs, signal, doing } = options
  signal?.throwIfAborted()
  const { contentType, head, tail } = formAround(record)
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest
  let request: ClientRequest | undefined
  try {
    request = send(url, {
      method: 'POST',
      headers: {
        'content-type': contentType,
        'content-length': head.length + record.size + tail.length,
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      timeout: stallTimeoutMs,
      ...(signal === undefined ? {} : { signal }),
    })
    const sent = request
    sent.once('timeout', () => {
      const line = `${doing} failed: nothing moved for ${stallTimeoutMs / 1000} s`
      sent.destroy(new ConductorError('TIMEOUT', line, { retryable: true }))
    })
    const answer = readAnswer(sent)
    // An endpoint may refuse before it has read everything, and its word is worth more than the broken pipe.
    const writing = pipeline(Readable.from(around(head, body, tail)), sent)
    const refused = await Promise.race([writing.then(() => undefined), answer])
    if (refused === undefined) return await answer
    writing.catch(() => {})
    return refused
  } catch (error) {
    throw mapHttpFailure(error, doing, signal)
  } finally {
    request?.destroy()
  }
}

async function readAnswer(request: ClientRequest): Promise<UploadAnswer> {
  return await new Promise((resolve, reject) => {
    request.once('error', reject)
    request.once('response', (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        if (text.length < MAX_ANSWER_BYTES) text += chunk
      })
      response.once('error', reject)
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text }))
    })
  })
}

async function* around(head: Buffer, body: Readable, tail: Buffer): AsyncGenerator<Uint8Array> {
  yield head
  yield* body as AsyncIterable<Uint8Array>
  yield tail
}

function formAround(record: ResultRecord): {
  readonly contentType: string
  readonly head: Buffer
  readonly tail: Buffer
} {
  const boundary = `----stu-conductor-${randomBytes(16).toString('hex')}`
  const fields = {
    key: record.key,
    task_id: record.task_id,
    metadata: JSON.stringify(record.metadata),
    sha256: record.sha256,
    content_type: record.content_type,
    created_at: record.created_at,
    ...(record.archive === null ? {} : { archive: record.archive }),
  }
  const parts = Object.entries(fields).map(
    ([name, value]) => `--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`,
  )
  const file = `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="${escapeName(record.name)}"\r\nContent-Type: ${record.content_type.replace(/[\r\n]/g, ' ')}\r\n\r\n`
  return {
    contentType: `multipart/form-data; boundary=${boundary}`,
    head: Buffer.from(parts.join('') + file),
    tail: Buffer.from(`\r\n--${boundary}--\r\n`),
  }
}

/** As browsers do: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data */
function escapeName(name: string): string {
  return name.replace(
    /["\r\n]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  )
}
