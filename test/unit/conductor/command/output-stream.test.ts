import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { OutputStream, streamMark } from '../../../../src/conductor/command/output-stream.js'

const MARK = streamMark('0123456789abcdef')

/** Bytes of which characters of one byte to four, and what is none, are made. */
const bytes = fc
  .array(
    fc.constantFrom(
      0x0a,
      0x61,
      0xc3,
      0xa9,
      0xe4,
      0xe2,
      0x82,
      0xac,
      0xf0,
      0x9f,
      0x98,
      0x80,
      0xef,
      0xbb,
      0xbf,
      0xbd,
    ),
    { minLength: 1, maxLength: 40 },
  )
  .map((list) => Uint8Array.from(list))

function decode(all: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(all, { stream: true })
}

async function* log(all: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < all.length; at += pieceBytes) yield all.subarray(at, at + pieceBytes)
}

/** Hands text on as the SDK does, up to a break of the connection. */
function hear(stream: OutputStream, heard: Uint8Array, cutBytes: number): void {
  const decoder = new TextDecoder()
  const all = Buffer.concat([Buffer.from(`login\u00e9\n${MARK}`), heard])
  for (let at = 0; at < all.length; at += cutBytes) {
    const text = decoder.decode(all.subarray(at, at + cutBytes), { stream: true })
    if (text !== '') stream.takeText(text)
  }
  const rest = decoder.decode()
  if (rest !== '') stream.takeText(rest)
}

describe('a stream of output', () => {
  it('goes on at the exact byte after a break, whatever was printed', async () => {
    const cut = fc.integer({ min: 1, max: 7 })
    await fc.assert(
      fc.asyncProperty(bytes, bytes, cut, cut, async (before, after, chunkBytes, pieceBytes) => {
        const all = Buffer.concat([before, after])
        let told = ''
        const add = (text: string): void => {
          told += text
        }
        const stream = new OutputStream(0, add, MARK)
        hear(stream, before, chunkBytes)
        await stream.settle(async () => log(all, pieceBytes), 1_000)
        // But for a replacement character at its end, which may stand for the first half of a character.
        expect([told, `${told}\uFFFD`]).toContain(decode(before))
        expect(new TextDecoder('utf-8', { ignoreBOM: true }).decode(all.subarray(0, stream.offset))).toBe(
          told,
        )
        stream.takeBytes(all.subarray(stream.offset))
        expect(told).toBe(decode(all))
        expect(stream.offset).toBe(all.length)
      }),
      { numRuns: 1_000 },
    )
  })

  it('tells all of an output that ended, also a character cut short', () => {
    const told: string[] = []
    const stream = new OutputStream(0, (text) => told.push(text), MARK)
    hear(stream, Uint8Array.from([0x61, 0xe2, 0x82]), 2)
    stream.endText()
    expect(told.join('')).toBe('a\uFFFD')
  })

  it('leaves nothing out where the log tells less than was heard, and asks none where all is known', async () => {
    const stream = new OutputStream(0, () => {}, MARK)
    hear(stream, Buffer.from('grün\n'), 3)
    await stream.settle(async () => {
      throw new Error('not to be asked')
    }, 1_000)
    expect(stream.offset).toBe(6)
    const bad = Uint8Array.from([0x61, 0xfc, 0xdf, 0x65, 0xfc, 0x0a])
    const full = new OutputStream(0, () => {}, MARK)
    hear(full, bad, 3)
    await full.settle(async () => log(bad, 2), 3)
    expect(full.offset).toBe(6)
  })

  it('counts what a log has left out, and says so', () => {
    const told: string[] = []
    const stream = new OutputStream(10, (text) => told.push(text))
    stream.takeGap(90)
    stream.takeBytes(Buffer.from('end'))
    expect(stream.offset).toBe(103)
    expect(told.join('')).toBe('\n[persist-result: 90 bytes left out]\nend')
  })
})
