import type { FileHandle } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'

/** Streams an open file as the answer, compressed when the client asks for just that, and closes it. */
export async function sendFile(
  req: IncomingMessage,
  res: ServerResponse,
  { handle, sizeBytes, name }: { handle: FileHandle; sizeBytes: number; name: string },
): Promise<void> {
  const gzip = sizeBytes > 0 && wantsGzip(req.headers['accept-encoding'])
  res.writeHead(200, {
    'content-type': 'application/octet-stream',
    'content-disposition': `inline; filename*=UTF-8''${encodeURIComponent(Buffer.from(name).toString()).replace(/['()*]/g, percent)}`,
    vary: 'Accept-Encoding',
    ...(gzip ? { 'content-encoding': 'gzip' } : { 'content-length': String(sizeBytes) }),
  })
  if (sizeBytes === 0) {
    await handle.close()
    res.end()
    return
  }
  // Never more than announced, should the file grow meanwhile.
  const body = handle.createReadStream({ end: sizeBytes - 1 })
  if (gzip) return await pipeline(body, createGzip(), res)
  await pipeline(body, res, { end: false })
  // One that shrinks breaks the connection: else the client would wait for the rest of it.
  if (body.bytesRead < sizeBytes) res.destroy()
  else res.end()
}

/**
 * Every fetch says that it could do with gzip, among others, and on one machine that would only cost time. The SDK's `gzip` option
 * names it alone.
 */
function wantsGzip(header: string | string[] | undefined): boolean {
  return (
    String(header ?? '')
      .trim()
      .toLowerCase() === 'gzip'
  )
}

function percent(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase()}`
}
