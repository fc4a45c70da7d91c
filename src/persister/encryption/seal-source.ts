import { readAt } from '../../files/disk.js'
import { parsePublicKey } from '../../protocol/encryption/public-key.js'
import { contextOf, sealedSize } from '../../protocol/encryption/sealed-format.js'
import { formatSealedType } from '../../protocol/encryption/sealed-type.js'
import { Sealer } from '../../protocol/encryption/sealer.js'
import { ENV } from '../../protocol/environment.js'
import type { Source } from '../source/source.js'
import type { Draft } from '../spool/commit.js'
import { type BodySource, CHUNK_BYTES, type OpenFile } from '../spool/stage.js'
import { recallContent, rememberContent } from './content-notes.js'

/** A result about to be stored encrypted. */
export interface Sealed {
  readonly draft: Draft
  readonly source: Source
}

/**
 * Turns what is to be stored into its encrypted form, before any of it is written: spool and stores see no other. Throws
 * `INVALID_OPTION` for a key that is none, so that nothing is stored in clear by mistake.
 */
export function sealSource(publicKey: string, draft: Draft, content: Source): Sealed {
  const key = parsePublicKey(ENV.encryptionKey, publicKey)
  const context = contextOf(draft.taskId, draft.name)
  let sealer: Sealer | undefined
  return {
    draft: { ...draft, contentType: formatSealedType({ keyId: key.id, contentType: draft.contentType }) },
    source: {
      ...content,
      sizeBytes: content.sizeBytes === undefined ? undefined : sealedSize(content.sizeBytes),
      read: () => {
        sealer = new Sealer(key, context)
        return { chunks: sealed(sealer, content.read()) }
      },
      // Its bytes lie nowhere yet.
      path: undefined,
      warnings: () => content.warnings(),
      close: () => content.close(),
      sealing: {
        content,
        sha256: () => sealer?.sha256,
        recall: recallContent,
        staged: ({ sha256 }) => {
          if (sealer?.sha256 !== undefined) rememberContent(sha256, sealer.sha256)
        },
      },
    },
  }
}

/** What a body becomes. A piece is good until the next is asked for. */
async function* sealed(sealer: Sealer, content: BodySource): AsyncGenerator<Uint8Array> {
  const out = new Gathered()
  yield* out.put(sealer.header)
  for await (const bytes of 'file' in content ? readPieces(content) : content.chunks) {
    for (const part of sealer.add(bytes)) yield* out.put(part)
  }
  for (const part of sealer.finish()) yield* out.put(part)
  yield* out.rest()
}

/** An open file in pieces; the next is read while one is being worked on. */
async function* readPieces({ file, sizeBytes }: OpenFile): AsyncGenerator<Uint8Array> {
  const buffers = [makeBuffer(sizeBytes), makeBuffer(sizeBytes)] as const
  let position = 0
  let reading = readAt(file, buffers[0], 0)
  try {
    for (let turn = 0; ; turn++) {
      const bytesRead = await reading
      if (bytesRead === 0) return
      position += bytesRead
      reading = readAt(file, buffers[turn % 2 === 0 ? 1 : 0], position)
      // Awaited in the next round or at the end; until then a failure must not count as unhandled.
      reading.catch(() => {})
      yield buffers[turn % 2 === 0 ? 0 : 1].subarray(0, bytesRead)
    }
  } finally {
    // The descriptor may be another file's as soon as this is over.
    await reading.catch(() => {})
  }
}

/** One more byte than a small file has shows its end at once. */
function makeBuffer(sizeBytes: number): Buffer {
  return Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, Math.max(4096, sizeBytes + 1)))
}

/** Makes few large pieces of many small ones: each costs a write. */
class Gathered {
  #buffer: Buffer | undefined
  #lengthBytes = 0;

  *put(bytes: Uint8Array): Generator<Uint8Array> {
    this.#buffer ??= Buffer.allocUnsafeSlow(CHUNK_BYTES + CHUNK_BYTES / 4)
    if (this.#lengthBytes + bytes.length > this.#buffer.length) yield* this.rest()
    this.#buffer.set(bytes, this.#lengthBytes)
    this.#lengthBytes += bytes.length
  }

  *rest(): Generator<Uint8Array> {
    if (this.#buffer === undefined || this.#lengthBytes === 0) return
    yield this.#buffer.subarray(0, this.#lengthBytes)
    this.#lengthBytes = 0
  }
}
