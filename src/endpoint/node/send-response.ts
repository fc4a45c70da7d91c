import type { IncomingMessage, ServerResponse } from 'node:http'

/** Writes an answer, its body only as fast as the client reads, and leaves it open. Rejects when it cannot be sent whole. */
export async function writeResponse(
  answer: Response,
  message: IncomingMessage,
  response: ServerResponse,
  stallTimeoutMs: number,
): Promise<void> {
  const headers: Record<string, string | string[]> = Object.fromEntries(answer.headers)
  const cookies = answer.headers.getSetCookie()
  if (cookies.length > 0) headers['set-cookie'] = cookies
  // What is left of a refused body makes the connection useless.
  if (!message.complete) headers.connection = 'close'
  response.writeHead(answer.status, headers)
  if (answer.body === null || message.method === 'HEAD') {
    await answer.body?.cancel()
    response.flushHeaders()
  } else {
    await writeBody(answer.body, response, stallTimeoutMs)
  }
}

async function writeBody(
  body: ReadableStream<Uint8Array>,
  response: ServerResponse,
  stallTimeoutMs: number,
): Promise<void> {
  const reader = body.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      if (response.destroyed) throw new Error('the client went away')
      if (!response.write(value)) await drained(response, stallTimeoutMs)
    }
  } catch (error) {
    await reader.cancel(error).catch(() => undefined)
    throw error
  }
}

/** Waits until there is room again; a connection that is gone is told by its state. */
function drained(response: ServerResponse, stallTimeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (end: () => void): void => {
      clearTimeout(timer)
      response.off('drain', go).off('close', go)
      end()
    }
    const go = (): void => settle(resolve)
    const timer = setTimeout(() => {
      settle(() => reject(new Error(`the client read nothing for ${stallTimeoutMs / 1000} s`)))
    }, stallTimeoutMs)
    response.once('drain', go).once('close', go)
  })
}
