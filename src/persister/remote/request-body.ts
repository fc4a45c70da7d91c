import type { ClientRequest } from 'node:http'
import { ConductorError } from '../../errors.js'
import { readAt, withOpen } from '../../files/disk.js'

const READ_BYTES = 1 << 20
/** Bodies up to this size are sent in one piece, readable in one go. */
const ONE_PIECE_BYTES = 128 * 1024

/** Part of a request's body: bytes, or a range of a file (end exclusive). */
export type BodyPart = Uint8Array | { readonly path: string; readonly start: number; readonly end: number }

/** A body, and who is told how much of it is gone. */
export interface OutgoingBody {
  readonly body: readonly BodyPart[]
  readonly onSent?: ((bytes: number) => void) | undefined
}

function lengthOf(part: BodyPart): number {
  return part instanceof Uint8Array ? part.length : part.end - part.start
}

/** Bytes of a whole body. */
export function lengthOfAll(body: readonly BodyPart[]): number {
  return body.reduce((sum, part) => sum + lengthOf(part), 0)
}

function drained(request: ClientRequest): Promise<void> {
  return new Promise((done) => {
    const settle = (): void => {
      request.off('drain', settle).off('close', settle)
      done()
    }
    request.once('drain', settle).once('close', settle)
  })
}

/** Reads a part of a body, a range of a file as far as the file goes. */
async function* readPart(part: BodyPart): AsyncGenerator<Uint8Array> {
  if (part instanceof Uint8Array) {
    yield part
    return
  }
  const { path, start, end } = part
  const { createReadStream } = await import('node:fs')
  yield* createReadStream(path, { start, end: end - 1, highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>
}

/** The whole of a small body in one piece: one packet, and none of what streams cost. */
async function gather(body: readonly BodyPart[], length: number): Promise<Buffer> {
  const whole = Buffer.allocUnsafe(length)
  let filled = 0
  for (const part of body) {
    const room = whole.subarray(filled, filled + lengthOf(part))
    if (part instanceof Uint8Array) room.set(part)
    else if ((await withOpen(part.path, (file) => readAt(file, room, part.start))) < room.length) {
      throw tooShort(part)
    }
    filled += room.length
  }
  return whole
}

function tooShort({ path }: { path: string }): ConductorError {
  return new ConductorError('INTEGRITY', `${path} is shorter than its record says`)
}

/** Sends the body, or as much of it as the other side lets us. */
export async function sendBody(
  request: ClientRequest,
  { body, onSent }: OutgoingBody,
  refused: () => boolean,
): Promise<void> {
  const length = lengthOfAll(body)
  if (length <= ONE_PIECE_BYTES) {
    request.end(await gather(body, length))
    onSent?.(length)
    return
  }
  for (const part of body) {
    let left = lengthOf(part)
    for await (const chunk of left === 0 ? [] : readPart(part)) {
      if (request.destroyed || refused()) return
      if (!request.write(chunk) && !request.destroyed) await drained(request)
      left -= chunk.length
      onSent?.(chunk.length)
    }
    if (left > 0 && !(part instanceof Uint8Array)) throw tooShort(part)
  }
  request.end()
}
