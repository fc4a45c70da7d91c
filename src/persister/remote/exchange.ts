import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
} from 'node:http'
import { ConductorError, isConductorError } from '../../errors.js'
import { systemCode } from '../../files/system-code.js'
import { describeError } from '../fs-error.js'
import { type Address, hostOf } from './address.js'
import type { Limits } from './limits.js'
import { type BodyPart, lengthOfAll, sendBody } from './request-body.js'

/** Bodies from here on ask first whether they are welcome, so that a refusal costs no upload. */
const ASK_FIRST_BYTES = 1 << 20
/** How long the question may stay open with servers that do not know it. */
const ASK_FIRST_MS = 1000
/** Largest answer that is kept as text; error documents are far smaller. */
const MAX_TEXT_BYTES = 4 << 20

/** A request to be made once. */
export interface Outgoing {
  readonly method: string
  readonly address: Address
  readonly headers: Readonly<Record<string, string>>
  readonly body?: readonly BodyPart[]
  readonly limits: Limits
  /** Whether the other side is known to understand `Expect: 100-continue`. */
  readonly askFirst?: boolean
  /** Ends the exchange early; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
  /** Told how many more bytes of a file were handed over. */
  readonly onSent?: ((bytes: number) => void) | undefined
}

/** What came back, its body read as text. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

const agents = new Map<boolean, HttpAgent>()

async function connector(secure: boolean): Promise<{ agent: HttpAgent; request: typeof httpRequest }> {
  // Loading TLS takes time that a store over plain HTTP need not spend.
  const https = secure ? await import('node:https') : undefined
  let agent = agents.get(secure)
  if (agent === undefined) {
    agent = https === undefined ? new HttpAgent({ keepAlive: true }) : new https.Agent({ keepAlive: true })
    agents.set(secure, agent)
  }
  return { agent, request: https === undefined ? httpRequest : https.request }
}

/** What TLS says of a certificate: https://nodejs.org/api/tls.html#x509-certificate-error-codes */
const CERTIFICATE_ERROR =
  /^(ERR_TLS_CERT_ALTNAME_INVALID|CERT_[A-Z_]+|[A-Z_]*SELF_SIGNED[A-Z_]*|UNABLE_TO_(GET|VERIFY|DECRYPT|DECODE)_[A-Z_]+|INVALID_(CA|PURPOSE)|HOSTNAME_MISMATCH)$/

/** Failures of the connection itself are all worth another try, since nothing was said about the request; a wrong certificate stays wrong. */
function mapNetworkError(error: unknown, host: string): unknown {
  if (isConductorError(error)) return error
  const system = systemCode(error)
  if (system !== undefined && CERTIFICATE_ERROR.test(system)) {
    return new ConductorError('ACCESS_DENIED', `the certificate of ${host} is not trusted: ${system}`, {
      cause: error,
    })
  }
  const why =
    system === 'ECONNREFUSED'
      ? `connection refused by ${host}`
      : system === 'ENOTFOUND' || system === 'EAI_AGAIN'
        ? `cannot resolve ${host}`
        : system === 'ECONNRESET' || system === 'EPIPE'
          ? `connection to ${host} was reset`
          : `connection to ${host} failed: ${describeError(error)}`
  return new ConductorError('UNAVAILABLE', why, { retryable: true, cause: error })
}

function welcomed(request: ClientRequest): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, ASK_FIRST_MS)
    const settle = (): void => {
      clearTimeout(timer)
      done()
    }
    request.once('continue', settle).once('response', settle).once('close', settle)
  })
}

/**
 * Makes a request and hands its answer, whatever its status, to `read`. Rejects with retryable `UNAVAILABLE` or `TIMEOUT`
 * when the connection fails or nothing moves for `limits.stallMs`.
 */
export async function exchange<T>(
  outgoing: Outgoing,
  read: (response: IncomingMessage) => Promise<T>,
): Promise<T> {
  const { address, limits, signal } = outgoing
  signal?.throwIfAborted()
  const host = hostOf(address)
  const length = outgoing.body === undefined ? undefined : lengthOfAll(outgoing.body)
  const asksFirst = outgoing.askFirst === true && (length ?? 0) >= ASK_FIRST_BYTES
  const { agent, request: makeRequest } = await connector(address.secure)
  const request = makeRequest({
    agent,
    method: outgoing.method,
    hostname: address.hostname,
    port: address.port,
    path: address.path === '' ? '/' : address.path,
    // Without TLS nobody asks for it, and finding it out takes an expression that is milliseconds in the making.
    ...(address.secure ? {} : { servername: '' }),
    headers: {
      ...outgoing.headers,
      host,
      ...(length === undefined ? {} : { 'content-length': String(length) }),
      ...(asksFirst ? { expect: '100-continue' } : {}),
    },
  })
  const abort = (): void => {
    request.destroy(new ConductorError('TIMEOUT', 'aborted'))
  }
  signal?.addEventListener('abort', abort, { once: true })
  request.setTimeout(limits.stallMs, () => {
    const line = `nothing moved between here and ${host} for ${limits.stallMs / 1000} s`
    request.destroy(new ConductorError('TIMEOUT', line, { retryable: true }))
  })
  let connecting: NodeJS.Timeout | undefined
  request.once('socket', (socket) => {
    if (!socket.connecting) return
    connecting = setTimeout(() => {
      const line = `no connection to ${host} within ${limits.connectMs / 1000} s`
      request.destroy(new ConductorError('TIMEOUT', line, { retryable: true }))
    }, limits.connectMs)
    socket.once(address.secure ? 'secureConnect' : 'connect', () => clearTimeout(connecting))
  })
  try {
    return await new Promise<T>((resolve, reject) => {
      let answered = false
      request.once('error', reject)
      request.once('response', (response) => {
        answered = true
        read(response).then(resolve, reject)
      })
      const send = async (): Promise<void> => {
        if (asksFirst) {
          request.flushHeaders()
          await welcomed(request)
          if (answered) return
        }
        const { body = [], onSent } = outgoing
        await sendBody(request, { body, onSent }, () => answered)
      }
      send().catch((error: unknown) => {
        request.destroy()
        reject(error)
      })
    })
  } catch (error) {
    request.destroy()
    if (signal?.aborted === true) throw signal.reason
    throw mapNetworkError(error, host)
  } finally {
    clearTimeout(connecting)
    signal?.removeEventListener('abort', abort)
    // An answer that came before the whole body was sent leaves the connection useless.
    if (!request.writableEnded) request.destroy()
  }
}

/** Reads an answer as text; one that breaks off or never ends is an error, not an answer. */
export function readAnswer(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  let size = 0
  return new Promise((done, fail) => {
    response.on('data', (chunk: Buffer) => {
      size += chunk.length
      chunks.push(chunk)
      if (size > MAX_TEXT_BYTES) response.destroy(new ConductorError('PROTOCOL', 'answer is too long'))
    })
    response.once('error', fail)
    response.once('end', () =>
      done({
        status: response.statusCode ?? 0,
        headers: response.headers,
        text: Buffer.concat(chunks).toString('utf8'),
      }),
    )
  })
}
