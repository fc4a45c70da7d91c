import type { HttpError } from './http-error.js'
import { SAFE_HEADERS } from './safe-headers.js'

/** Sent with everything that says something about one task only. */
const PRIVATE: Readonly<Record<string, string>> = {
  'cache-control': 'private, no-store',
  vary: 'authorization',
}

/** An answer in JSON, which browsers neither show as a page nor keep. */
export function jsonResponse(
  status: number,
  value: unknown,
  headers: Readonly<Record<string, string>> = {},
): Response {
  const body = `${JSON.stringify(value)}\n`
  return new Response(body, {
    status,
    headers: {
      ...SAFE_HEADERS,
      ...PRIVATE,
      'content-type': 'application/json; charset=utf-8',
      'content-length': String(Buffer.byteLength(body)),
      ...headers,
    },
  })
}

/** An answer whose body, if any, is not JSON. */
export function plainResponse(
  status: number,
  body: ReadableStream<Uint8Array> | null,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return new Response(body, { status, headers: { ...SAFE_HEADERS, ...PRIVATE, ...headers } })
}

/** A refusal as clients see it. */
export function errorResponse(error: HttpError): Response {
  return jsonResponse(error.status, { error: { code: error.code, message: error.message } }, error.headers)
}

/** The same answer without its body, for HEAD. */
export async function withoutBody(response: Response): Promise<Response> {
  await response.body?.cancel()
  return new Response(null, { status: response.status, headers: response.headers })
}
