import type { Readable } from 'node:stream'
import type { Source } from './source.js'

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

/** Content handed over as bytes or text. */
export function openContent(content: Uint8Array | string): Source {
  const bytes = typeof content === 'string' ? Buffer.from(content, 'utf8') : content
  return {
    defaultName: undefined,
    archive: null,
    fallbackType: typeof content === 'string' ? 'text/plain; charset=utf-8' : 'application/octet-stream',
    sizeBytes: bytes.byteLength,
    read: () => ({ chunks: one(bytes) }),
    repeatable: true,
    path: undefined,
    warnings: () => [],
    close: async () => {},
  }
}

async function* toBytes(stream: Readable): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    if (typeof chunk === 'string') yield Buffer.from(chunk, 'utf8')
    else if (chunk instanceof Uint8Array) yield chunk
    else throw new TypeError(`stream gave ${typeof chunk} where bytes or text were expected`)
  }
}

/** Content that arrives as a stream; its length is known only at its end. */
export function openStream(stream: Readable): Source {
  return {
    defaultName: undefined,
    archive: null,
    fallbackType: 'application/octet-stream',
    sizeBytes: undefined,
    read: () => ({ chunks: toBytes(stream) }),
    repeatable: false,
    path: undefined,
    warnings: () => [],
    close: async () => {
      stream.destroy()
    },
  }
}
