import { ConductorError } from '../../errors.js'
import { type HttpRefusal, mapHttpFailure, mapHttpRefusal } from './map-http-error.js'

/** A request for something of an endpoint. */
export interface HttpCall {
  readonly url: URL
  readonly method?: 'GET' | 'HEAD' | 'DELETE' | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly token: string | undefined
  /** Longest time without a byte, in milliseconds. */
  readonly stallTimeoutMs: number
  readonly signal: AbortSignal | undefined
  /** Names the call in errors; holds no secret. */
  readonly doing: string
}

/** Error bodies are a line; what is longer is none of ours. */
const MAX_ERROR_BYTES = 64 * 1024

/** An answer whose body comes in bounded time, or fails. */
export interface HttpAnswer {
  readonly status: number
  readonly headers: Headers
  /** Fails with `TIMEOUT` when nothing comes for too long. Must be read to its end or cancelled. */
  readonly body: ReadableStream<Uint8Array>
}

/** Sends a request. Redirects are failures: they could lead the token, or the reader, anywhere. */
export async function send(call: HttpCall): Promise<HttpAnswer> {
  const { url, method = 'GET', token, stallTimeoutMs, signal, doing } = call
  signal?.throwIfAborted()
  const ended = new AbortController()
  const abort = (): void => ended.abort(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })
  let isAwaited = true
  const timer = setInterval(() => {
    // A reader that takes its time is no fault of the endpoint.
    if (!isAwaited) return
    const line = `${doing} failed: nothing came for ${stallTimeoutMs / 1000} s`
    ended.abort(new ConductorError('TIMEOUT', line, { retryable: true }))
  }, stallTimeoutMs).unref()
  const awaits = (awaited: boolean): void => {
    isAwaited = awaited
    timer.refresh()
  }
  const release = (): void => {
    clearInterval(timer)
    signal?.removeEventListener('abort', abort)
  }
  const translate = (error: unknown): unknown => {
    const { aborted, reason } = ended.signal
    return mapHttpFailure(aborted ? reason : error, doing, signal)
  }
  try {
    const response = await fetch(url, {
      method,
      headers: {
        'accept-encoding': 'identity',
        ...call.headers,
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      redirect: 'error',
      signal: ended.signal,
    })
    const body = watch(response.body, awaits, release, translate)
    awaits(false)
    return { status: response.status, headers: response.headers, body }
  } catch (error) {
    release()
    throw translate(error)
  }
}

/** The body, with the clock running only while somebody waits for it. */
function watch(
  body: ReadableStream<Uint8Array> | null,
  awaits: (awaited: boolean) => void,
  release: () => void,
  translate: (error: unknown) => unknown,
): ReadableStream<Uint8Array> {
  if (body === null) {
    release()
    return new ReadableStream({ start: (controller) => controller.close() })
  }
  const reader = body.getReader()
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          awaits(true)
          const { done, value } = await reader.read()
          awaits(false)
          if (!done) return controller.enqueue(value)
          release()
          controller.close()
        } catch (error) {
          release()
          throw translate(error)
        }
      },
      async cancel(reason) {
        release()
        await reader.cancel(reason)
      },
    },
    { highWaterMark: 0 },
  )
}

/** Reads a body as text; throws `PROTOCOL` past the limit, which bounds the memory used. */
export async function readText(answer: HttpAnswer, maxBytes: number, doing: string): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  // Leaving the loop early cancels the body.
  for await (const chunk of answer.body) {
    size += chunk.length
    if (size > maxBytes) throw new ConductorError('PROTOCOL', `${doing} answered with over ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** What an answer other than the expected ones says of itself. Its body is used up. */
export async function readRefusal(answer: HttpAnswer, doing: string): Promise<HttpRefusal> {
  return { status: answer.status, code: errorCode(await readErrorText(answer, doing)) }
}

/** The error that an answer other than the expected ones stands for. Its body is used up. */
export async function refusalOf(answer: HttpAnswer, doing: string): Promise<ConductorError> {
  return mapHttpRefusal(await readRefusal(answer, doing), doing)
}

async function readErrorText(answer: HttpAnswer, doing: string): Promise<string> {
  try {
    return await readText(answer, MAX_ERROR_BYTES, doing)
  } catch (error) {
    // The status tells enough; a caller's own cancellation is another matter.
    if (error instanceof ConductorError) return ''
    throw error
  }
}

/** The code in a JSON error body, when it looks like one: it ends up in messages. */
export function errorCode(text: string): string | undefined {
  try {
    const code: unknown = JSON.parse(text)?.error?.code
    return typeof code === 'string' && /^[a-z0-9_]{1,64}$/.test(code) ? code : undefined
  } catch {
    return undefined
  }
}
