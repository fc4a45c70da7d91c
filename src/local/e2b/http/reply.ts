import type { ServerResponse } from 'node:http'

/** Answers with a JSON document. */
export function sendJson(
  res: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  const text = JSON.stringify(body)
  res.writeHead(status, {
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(text)),
    ...headers,
  })
  res.end(text)
}

/** Answers that it is done and there is nothing to tell. */
export function sendEmpty(res: ServerResponse): void {
  res.writeHead(204)
  res.end()
}
